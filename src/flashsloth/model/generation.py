"""How a FlashSloth generates: transformers' `generate`, with the pictures and position tensors looked after.

In: what the processor made. Out: what `generate` passes to `forward` at each step: everything in the prompt's pass,
neither pictures nor position tensors in the cached steps after it, both again and grown with each step where the cache
is off.

Keys and values of earlier passes are `past_key_values` in transformers, and since 5.24 `cache`; only this file knows
both names.

Legend: B batch, T prompt positions, N pictures.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from flashsloth.model.loading.non_finite import NonFinitePass, all_finite, explained
from flashsloth.model.positions import rows_of_pictures
from flashsloth.model.prompt_layout import POSITION_TENSORS, holds_placeholders, layout_from_ids, views_of_pictures

CACHE_NAMES = ("cache", "past_key_values")
"""Newest first."""
CACHE_NAME = next(name for name in CACHE_NAMES if name in {field.name for field in fields(BaseModelOutputWithPast)})
"""What the installed transformers calls it in its outputs, and in what `generate` hands to a model."""
PICTURE_INPUTS = ("pixel_values", "image_views", "image_row", "mm_encoder_outputs")
_REFUSED = {
    "prefill_chunk_size": "a chunk of the prompt would reach EmbQ without its question or picture",
    "prompt_lookup_num_tokens": "it would copy placeholders of the prompt into the answer",
    "assistant_model": "a draft model is not given the positions of pictures and queries",
    "assistant_early_exit": "a draft of the first layers would not pass through EmbQ",
}
"""Settings of `generate` that would lose pictures, and why."""


def cache_argument(language_model: Any) -> str:
    """What a language model's `forward` calls keys and values: by a name that is known, or as what takes a `Cache`.

    Raises:
        ValueError: if it takes none.
    """
    parameters = inspect.signature(language_model.forward).parameters
    known = (name for name in CACHE_NAMES if name in parameters)
    typed = (name for name, parameter in parameters.items() if "Cache" in str(parameter.annotation))
    found = next(known, None) or next(typed, None)
    if found is None:
        raise ValueError(
            f"{type(language_model).__name__} takes no keys and values of earlier passes: FlashSloth needs a "
            f"decoder-only language model of transformers with attention and positions"
        )
    return found


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The keys and values that came under either name.

    Raises:
        ValueError: if two came.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("give cache or past_key_values, not both: they are two names of the same thing")
    if past_key_values is not None and CACHE_NAME != "past_key_values":
        warnings.warn("`past_key_values` is deprecated in transformers: give `cache`", FutureWarning, stacklevel=3)
    return past_key_values if cache is None else cache


class FlashSlothGenerationMixin(GenerationMixin):
    """Beams, sampling, several sequences, with and without cache."""

    def generate(self, inputs: torch.Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """As transformers' `generate`; see there.

        Raises:
            ValueError: for what would lose pictures or copy placeholders: `prefill_chunk_size`, prompt lookup, a draft
                model; and for prompts padded on the right.
            NonFiniteError: where the model computes NaN or infinity.
        """

        def setting(name: str) -> Any:
            """As transformers settles it: the call's, or the given configuration's, or the model's own."""
            configs = (generation_config, self.generation_config)
            given = (kwargs.get(name), *(getattr(config, name, None) for config in configs))
            return next((value for value in given if value is not None), None)

        for name, reason in _REFUSED.items():
            if setting(name) is not None:
                raise ValueError(f"{name} does not work with FlashSloth: {reason}. Generate without it")
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.ndim == 2 and bool((mask[:, -1] == 0).any()):
            raise ValueError(
                f"{int((mask[:, -1] == 0).sum())} of {len(mask)} prompts end in padding, and their answers would begin "
                f"after it: pad on the left (padding_side='left')"
            )
        if (cache := one_cache(*(kwargs.pop(name, None) for name in CACHE_NAMES))) is not None:
            kwargs[CACHE_NAME] = cache
        kwargs |= self._layout_of_prompts(inputs, kwargs)
        kwargs["suppress_tokens"] = sorted({*self._placeholders(), *(setting("suppress_tokens") or ())})
        try:
            return super().generate(inputs, generation_config, **kwargs)
        except NonFinitePass:
            again = partial(super().generate, inputs, generation_config, **{**kwargs, "streamer": None})
            raise explained(self, again) from None

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """What every way of generating does after a pass; here, where its logits are new, they are looked at."""
        if not all_finite(outputs.logits[:, -1]):
            raise NonFinitePass
        updated: dict[str, Any] = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        return updated

    def _layout_of_prompts(self, inputs: torch.Tensor | None, kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The position tensors of prompts whose ids came without; nothing where they came, or none are needed."""
        ids = kwargs.get("input_ids") if inputs is None else inputs
        given = any(kwargs.get(name) is not None for name in POSITION_TENSORS)
        if ids is None or given or not holds_placeholders(ids, self.config):
            return {}
        views = views_of_pictures(
            kwargs.get("pixel_values"), kwargs.get("image_views"), kwargs.get("mm_encoder_outputs"), self.config
        )
        return layout_from_ids(ids, views, self.config, kwargs.get("attention_mask"))

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        *args: Any,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Keep pictures and position tensors for passes that hold the prompt, drop them from cached steps."""
        model_inputs = super().prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        holds_prompt = is_first_iteration or not kwargs.get("use_cache", True)
        if not holds_prompt:
            for name in (*POSITION_TENSORS, *PICTURE_INPUTS):
                model_inputs.pop(name, None)
            return model_inputs
        ids = model_inputs.get("input_ids")
        length = ids.shape[1] if ids is not None else model_inputs["inputs_embeds"].shape[1]
        total = max(input_ids.shape[1], length)
        pictures = _count(model_inputs)
        if pictures and model_inputs.get("image_row") is None and model_inputs.get("image_index") is not None:
            # Some may stand in the part of the prompt that is cached, which is cut off below.
            model_inputs["image_row"] = rows_of_pictures(pictures, None, model_inputs["image_index"])
        for name in POSITION_TENSORS:
            if (marks := model_inputs.get(name)) is not None:
                grown = torch.nn.functional.pad(marks, (0, total - marks.shape[1]))  # generated tokens are unmarked
                model_inputs[name] = grown[:, total - length :]
        return model_inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **model_kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Repeat every row, each with its own group of pictures: rows [a, b] become [a, a, b, b]."""
        if expand_size == 1:
            return input_ids, model_kwargs
        pictures = {name: model_kwargs.pop(name) for name in PICTURE_INPUTS if model_kwargs.get(name) is not None}
        image_index = model_kwargs.get("image_index")
        batch = len(input_ids) if input_ids is not None and input_ids.numel() else len(model_kwargs["inputs_embeds"])
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        if pictures:
            if image_index is None:
                image_index = torch.zeros(batch, 1, dtype=torch.long)
            image_row = rows_of_pictures(_count(pictures), pictures.get("image_row"), image_index)
            model_kwargs.update(_expand_pictures(pictures, image_row, batch, expand_size))
        return input_ids, model_kwargs

    def _suppress_placeholders(self) -> None:
        """Never generate a placeholder: it would stand for a picture or a query that is not there."""
        if self.generation_config is not None:
            self.generation_config.suppress_tokens = self._placeholders()

    def _placeholders(self) -> list[int]:
        return [self.config.image_token_id, self.config.query_token_id]


def _count(pictures: dict[str, Any]) -> int:
    """How many pictures, raw or looked at."""
    encoded = (pictures.get("mm_encoder_outputs") or {}).get("image")
    if encoded is not None:
        return len(encoded.pooler_output)
    pixel_values = pictures.get("pixel_values")
    return 0 if pixel_values is None else len(pixel_values)


def _expand_pictures(pictures: dict[str, Any], image_row: torch.Tensor, batch: int, expand_size: int) -> dict[str, Any]:
    """Repeat each row's pictures as a group, for `expand_size` copies of each of `batch` rows."""
    groups = [(image_row == row).nonzero().flatten() for row in range(batch)]
    order = torch.cat([group for group in groups for _ in range(expand_size)])
    new_row = torch.repeat_interleave(
        torch.arange(batch * expand_size, device=image_row.device),
        torch.tensor([len(group) for group in groups for _ in range(expand_size)], device=image_row.device),
    )
    expanded: dict[str, Any] = {"image_row": new_row}
    for name in ("pixel_values", "image_views"):
        if (given := pictures.get(name)) is not None:
            expanded[name] = given[order]
    if (outputs := pictures.get("mm_encoder_outputs")) is not None:
        expanded["mm_encoder_outputs"] = {
            # Every tensor that has pictures, picked in order; the encoder's inner states stay behind.
            modality: type(output)(
                **{name: held[order] for name, held in output.items() if isinstance(held, torch.Tensor)}
            )
            for modality, output in outputs.items()
        }
    return expanded


def plain_cache(text_config: Any) -> DynamicCache | None:
    """An empty cache of transformers' whose layers hold keys and values alone; None where a model keeps more.

    Sliding windows, recurrent and hybrid layers do: then answers of unlike length cannot run side by side, and prefixes
    cannot be shared.
    """
    cache = DynamicCache(config=text_config)
    return cache if all(type(layer) is DynamicLayer for layer in cache.layers) else None
