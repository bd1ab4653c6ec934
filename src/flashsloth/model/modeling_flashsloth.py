"""FlashSloth: a ViT-like encoder, SAP, a projector, and a decoder-only language model with EmbQ inside.

In: token ids with placeholders, pictures, and the processor's position tensors (see `positions.py`).
Out: logits; with labels, the loss. Sources: FlashSloth (arXiv 2412.04317), figure 2 and section 3.

    pixel_values -> vision_tower -> F -> SAP -> projector -> visual tokens -> language_model
                                    '------------- EmbQ ---- before layer `embq_layer` --'

Legend: B batch, T positions of this pass, N pictures, W views a picture, P patches and R windows a view, V vision
width, D language-model width, Q query tokens a turn.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.embedded_query import EmbeddedQuery, EmbeddedQueryInputs, QueryTokens, ZeroLinear
from flashsloth.model.generation import FlashSlothGenerationMixin
from flashsloth.model.positions import embedded_query_inputs, rows_of_pictures, visual_slots
from flashsloth.model.spatial_attention_pooling import SpatialAttentionPooling

_EMBQ_KWARG = "embedded_query_inputs"
_DECODER_INPUTS = {"inputs_embeds", "attention_mask", "position_ids", "past_key_values"}
_FINAL_NORMS = ("post_layernorm", "layernorm", "layer_norm", "norm")
"""What encoders call the normalisation after their last layer, which F does not pass through."""


@dataclass
class FlashSlothImageFeatures(ModelOutput):
    """What the encoder side makes of N pictures.

    Attributes:
        last_hidden_state: float [N, W*P, V], F: the uncompressed features, views one after the other.
        pooler_output: float [N, W*R, D], the visual tokens.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None


@dataclass
class FlashSlothModelOutput(ModelOutput):
    """`last_hidden_state` float [B, T, D] and what the language model was asked to return beside it."""

    last_hidden_state: torch.FloatTensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    image_hidden_states: FlashSlothImageFeatures | None = None


@dataclass
class FlashSlothCausalLMOutput(ModelOutput):
    """`loss` [], `logits` float [B, T or fewer, vocabulary] and what the language model returned beside them."""

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    image_hidden_states: FlashSlothImageFeatures | None = None


class FlashSlothProjector(nn.Module):
    """Linear, GELU, Linear: vision width [.., V] to language-model width [.., D]."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        text_size = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, text_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(text_size, text_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear_2(self.act(self.linear_1(features)))


class FlashSlothPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of the family."""

    config: FlashSlothConfig
    config_class = FlashSlothConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw weights the usual way, and EmbQ's way back as zeros."""
        if isinstance(module, ZeroLinear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, QueryTokens):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint, ours or in the published layout, strictly (see `checkpoint/loading.py`)."""
        from flashsloth.model.checkpoint import load_model

        return load_model(super().from_pretrained, pretrained_model_name_or_path, *args, **kwargs)


class FlashSlothModel(FlashSlothPreTrainedModel):
    """Everything but the head: pictures and token ids in, hidden states out."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_tower_config())
        _drop_final_norm(self.vision_tower)
        self.spatial_attention_pooling = SpatialAttentionPooling(config)
        self.projector = FlashSlothProjector(config)
        self.query_tokens = QueryTokens(config)
        self.embedded_query = EmbeddedQuery(config)
        self.language_model = AutoModel.from_config(config.text_config)
        decoder_layers(self.language_model)[config.embq_layer].register_forward_pre_hook(
            self._embed_queries, with_kwargs=True
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> FlashSlothImageFeatures:
        """Look at pictures.

        Args:
            pixel_values: float [N, W, 3, size, size], or [N, 3, size, size] for one view a picture.

        Raises:
            ValueError: if the views or their size are not what the configuration says.
        """
        views = self._check_pixels(pixel_values)  # [N*W, 3, size, size]
        tower_output = self.vision_tower(pixel_values=views.to(self.vision_tower.dtype), return_dict=True)
        # A class token, where the encoder has one, stands first.
        features = tower_output.last_hidden_state[:, -self.config.num_patches :]  # [N*W, P, V]
        pooled = self.spatial_attention_pooling(features)  # [N*W, R, V]
        tokens = self.projector(pooled)  # [N*W, R, D]
        grouped = (-1, self.config.num_views)
        return FlashSlothImageFeatures(
            last_hidden_state=features.unflatten(0, grouped).flatten(1, 2),  # [N, W*P, V]
            pooler_output=tokens.unflatten(0, grouped).flatten(1, 2),  # [N, W*R, D]
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_row: torch.LongTensor | None = None,
        image_index: torch.LongTensor | None = None,
        query_turn: torch.LongTensor | None = None,
        question_turn: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, FlashSlothImageFeatures] | None = None,
        **kwargs: Any,
    ) -> FlashSlothModelOutput:
        """Run one pass: a prompt, a part of one, or a step of generation.

        Args:
            input_ids: int64 [B, T], or `inputs_embeds` float [B, T, D] in their place, placeholders included.
            attention_mask: [B, past + T], 0 at padding, on either side.
            position_ids: int64 [B, T]; by default counted over `attention_mask`, so that padding does not count.
            pixel_values: the N pictures, float [N, W, 3, size, size]; or, already looked at,
                `mm_encoder_outputs={"image": FlashSlothImageFeatures}`.
            image_row: int64 [N], the batch row of each picture. Default: as `image_index` counts them. Needed only
                where pictures stand in an earlier, cached pass.
            image_index, query_turn, question_turn: int64 [B, T], the processor's position tensors.

        Raises:
            ValueError: where pictures, placeholders and position tensors do not agree.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        self._check_placeholders(input_ids, image_index, query_turn)
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        self._check_precision(inputs_embeds)
        image = self._image_features(pixel_values, mm_encoder_outputs)
        embq_inputs = None
        if image is not None:
            if image_index is None:
                image_index = torch.zeros(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
            image_row = rows_of_pictures(image.pooler_output.shape[0], image_row, image_index)
            slots = visual_slots(image_index, image_row, self.config.num_image_tokens)  # [N, T]
            inputs_embeds = _place_visual_tokens(inputs_embeds, image, image_row, slots)
            if query_turn is not None and question_turn is not None:
                embq_inputs = embedded_query_inputs(
                    query_turn, question_turn, image.last_hidden_state, image_row, slots, self.config.num_query_tokens
                )
        elif image_index is not None and bool((image_index > 0).any()):
            raise ValueError(
                f"image_index marks {int((image_index > 0).sum())} visual positions, but no pictures were given: "
                f"pass pixel_values"
            )
        if query_turn is not None:
            inputs_embeds = self._place_query_tokens(inputs_embeds, query_turn)
        if self.training:
            inputs_embeds = self._touch_idle_parameters(inputs_embeds, image, embq_inputs)
        if position_ids is None:
            position_ids = _positions_without_padding(attention_mask, inputs_embeds.shape[1])
        if embq_inputs is not None:
            kwargs[_EMBQ_KWARG] = embq_inputs
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        if embq_inputs is not None and not embq_inputs.used:
            raise ValueError(
                f"{type(self.language_model).__name__} does not hand keyword arguments down to its layers, so its "
                f"queries would never see the picture: choose another language model"
            )
        return FlashSlothModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            image_hidden_states=image,
        )

    def _embed_queries(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Before decoder layer `embq_layer`: let the queries look. The one place where the language model is touched.

        What EmbQ needs travels in the layer's keyword arguments, which every decoder of transformers hands down, so
        recomputation, several threads and several devices need no care.
        """
        inputs = kwargs.get(_EMBQ_KWARG)
        if inputs is None:
            return args, kwargs
        inputs.used = True
        if args:
            return (self.embedded_query(args[0], inputs), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.embedded_query(kwargs["hidden_states"], inputs)}

    def _image_features(
        self, pixel_values: torch.Tensor | None, outputs: dict[str, FlashSlothImageFeatures] | None
    ) -> FlashSlothImageFeatures | None:
        """The pictures as given, or looked at now, or None."""
        given = outputs.get("image") if outputs else None
        if given is not None and pixel_values is not None:
            raise ValueError("give pixel_values or mm_encoder_outputs['image'], not both: they are the same pictures")
        if given is None and pixel_values is not None and len(pixel_values):
            return self.get_image_features(pixel_values)
        return given

    def _place_query_tokens(self, inputs_embeds: torch.Tensor, query_turn: torch.Tensor) -> torch.Tensor:
        """Put the Q query vectors, each with the anchor's embedding, at every turn's query positions."""
        mask = query_turn > 0
        count, size = int(mask.sum()), self.config.num_query_tokens
        if count % size:
            raise ValueError(f"query_turn marks {count} positions, expected a multiple of {size}")
        anchor_id = torch.tensor(self.config.anchor_token_id, device=inputs_embeds.device)
        queries = self.query_tokens(self.get_input_embeddings()(anchor_id))  # [Q, D]
        repeated = queries.to(inputs_embeds.dtype).repeat(count // size, 1)  # [n*Q, D]
        return inputs_embeds.masked_scatter(mask.unsqueeze(-1), repeated)

    def _touch_idle_parameters(
        self,
        inputs_embeds: torch.Tensor,
        image: FlashSlothImageFeatures | None,
        embq_inputs: EmbeddedQueryInputs | None,
    ) -> torch.Tensor:
        """Add zero times every trained part this batch does not use: sharded training needs all ranks to use all."""
        idle: list[torch.Tensor] = []
        parts = (self.vision_tower, self.spatial_attention_pooling, self.projector)
        if image is None and any(_trains(part) for part in parts):
            size = self.config.vision_config.image_size
            image = self.get_image_features(inputs_embeds.new_zeros(1, self.config.num_views, 3, size, size))
            idle.append(image.pooler_output)
        if embq_inputs is None and (_trains(self.embedded_query) or _trains(self.query_tokens)):
            idle.append(self._idle_embedded_query(inputs_embeds, image))
        for output in idle:
            inputs_embeds = inputs_embeds + 0.0 * output.sum().to(inputs_embeds.dtype)
        return inputs_embeds

    def _idle_embedded_query(
        self, inputs_embeds: torch.Tensor, image: FlashSlothImageFeatures | None
    ) -> torch.Tensor:
        """EmbQ's answer to its own query tokens, for :meth:`_touch_idle_parameters`: float [1, Q, D]."""
        queries = self.query_tokens(inputs_embeds.new_zeros(inputs_embeds.shape[-1]))[None]  # [1, Q, D]
        if image is None:
            features = queries.new_zeros(1, 1, self.config.vision_config.hidden_size)
        else:
            features = image.last_hidden_state[:1]
        everything = torch.ones(queries.shape[:2], dtype=torch.bool, device=queries.device)
        place = torch.arange(queries.shape[1], device=queries.device)[None]
        inputs = EmbeddedQueryInputs(place, place, everything, features, torch.zeros_like(place[0, :1]))
        return self.embedded_query.look(queries, queries, inputs)

    def _check_placeholders(
        self, input_ids: torch.Tensor | None, image_index: torch.Tensor | None, query_turn: torch.Tensor | None
    ) -> None:
        """Every placeholder id needs its mark: ids without position tensors would be read as words."""
        if input_ids is None:
            return
        for name, marks, token_id in (
            ("image_index", image_index, self.config.image_token_id),
            ("query_turn", query_turn, self.config.query_token_id),
        ):
            is_token = input_ids == token_id
            if marks is None and bool(is_token.any()):
                raise ValueError(f"input_ids holds placeholder {token_id}, but {name} was not given: use the processor")
            if marks is not None and (marks.shape != input_ids.shape or bool(((marks > 0) != is_token).any())):
                raise ValueError(
                    f"{name} {tuple(marks.shape)} does not mark exactly the {int(is_token.sum())} placeholders "
                    f"{token_id} of input_ids {tuple(input_ids.shape)}: use the processor's tensors together"
                )

    def _check_precision(self, inputs_embeds: torch.Tensor) -> None:
        """Phi's attention scores overflow float16 where they are multiplied before they are scaled."""
        device = inputs_embeds.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs_embeds.dtype
        text = self.language_model.config
        if dtype == torch.float16 and text.model_type == "phi" and text._attn_implementation == "eager":
            raise ValueError(
                "float16 with eager attention overflows in Phi: use bfloat16, or attn_implementation='sdpa'"
            )

    def _check_pixels(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Views in one row: float [N*W, 3, size, size]."""
        size, views = self.config.vision_config.image_size, self.config.num_views
        if pixel_values.ndim == 4:
            pixel_values = pixel_values.unsqueeze(1)
        if pixel_values.ndim != 5 or pixel_values.shape[1:] != (views, 3, size, size):
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, expected [pictures, {views}, 3, {size}, {size}]: "
                f"use this model's own processor"
            )
        return pixel_values.flatten(0, 1)


class FlashSlothForConditionalGeneration(FlashSlothGenerationMixin, FlashSlothPreTrainedModel):
    """FlashSloth with its head: what answers, and what is trained."""

    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012 - transformers reads a plain class attribute

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__(config)
        self.model = FlashSlothModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=config.lm_head_bias)
        self._tied_weights_keys = {"lm_head.weight": _embedding_name(self)}
        self.post_init()
        self._suppress_placeholders()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> FlashSlothImageFeatures:
        """See :meth:`FlashSlothModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_row: torch.LongTensor | None = None,
        image_index: torch.LongTensor | None = None,
        query_turn: torch.LongTensor | None = None,
        question_turn: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict[str, FlashSlothImageFeatures] | None = None,
        **kwargs: Any,
    ) -> FlashSlothCausalLMOutput:
        """As :meth:`FlashSlothModel.forward`, then the head.

        Args:
            labels: int64 [B, T], -100 where nothing is learned. The loss is the mean next-token cross-entropy over all
                supervised tokens of the batch.
            logits_to_keep: how many last positions get logits (0: all), or int64 indices of those that do.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            pixel_values=pixel_values,
            image_row=image_row,
            image_index=image_index,
            query_turn=query_turn,
            question_turn=question_turn,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **{name: value for name, value in kwargs.items() if name != "num_items_in_batch"},
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return FlashSlothCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )


def decoder_layers(language_model: nn.Module) -> nn.ModuleList:
    """The stack of decoder layers of any decoder-only model of transformers.

    Raises:
        ValueError: if there is not exactly one list of as many modules as the configuration has layers, or the model
            does not take what FlashSloth gives it.
    """
    missing = sorted(_DECODER_INPUTS - set(inspect.signature(language_model.forward).parameters))
    if missing:
        raise ValueError(
            f"{type(language_model).__name__} takes no {', '.join(missing)}: FlashSloth needs a decoder-only language "
            f"model of transformers with attention and positions"
        )
    count = language_model.config.num_hidden_layers
    stacks = [m for m in language_model.children() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(stacks) != 1:
        raise ValueError(
            f"{type(language_model).__name__} has {len(stacks)} lists of {count} layers, expected one: FlashSloth "
            f"needs a decoder-only language model of transformers"
        )
    return stacks[0]


def _drop_final_norm(vision_tower: nn.Module) -> None:
    """F is what leaves the last layer, not normalised: replace the encoder's final norm by nothing."""
    for name in _FINAL_NORMS:
        if isinstance(getattr(vision_tower, name, None), nn.Module):
            setattr(vision_tower, name, nn.Identity())


def _embedding_name(model: FlashSlothForConditionalGeneration) -> str:
    """The parameter name of the input embeddings, whatever the language model calls them."""
    weight = model.get_input_embeddings().weight
    return next(name for name, parameter in model.named_parameters() if parameter is weight)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _place_visual_tokens(
    inputs_embeds: torch.Tensor, image: FlashSlothImageFeatures, image_row: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor:
    """Put every picture's visual tokens where its placeholders stand: float [B, T, D]."""
    picture, position = slots.nonzero(as_tuple=True)  # [k*R] each, pictures and positions in order
    present = slots.any(dim=1)  # pictures of this pass; the others' keys and values are cached
    tokens = image.pooler_output[present].flatten(0, 1).to(inputs_embeds)  # [k*R, D]
    return inputs_embeds.index_put((image_row[picture], position), tokens)


def _positions_without_padding(attention_mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """Positions counted over real tokens: int64 [B, T], or None where the language model's own default is right."""
    if attention_mask is None or attention_mask.ndim != 2 or bool(attention_mask.all()):
        return None
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -length:]


__all__ = [
    "FlashSlothForConditionalGeneration",
    "FlashSlothImageFeatures",
    "FlashSlothModel",
    "FlashSlothPreTrainedModel",
    "decoder_layers",
]
