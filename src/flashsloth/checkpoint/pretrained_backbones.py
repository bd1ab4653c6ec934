"""The two pretrained backbones of a new FlashSloth, loaded and checked.

In: folders or names on the hub. Out: a :class:`VisionBackbone` and a :class:`LanguageBackbone`: configurations and
tensors, named as the backbones themselves name them.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flashsloth.errors import FlashSlothError
from flashsloth.model.loading.folders import UNREACHABLE, offline_options, read_config_dict

logger = logging.getLogger(__name__)

_PREPROCESSOR, _PROCESSOR = "preprocessor_config.json", "processor_config.json"
"""Where an image processor's settings stand, saved alone or inside a processor's."""
_NEUTRAL = (0.5, 0.5, 0.5)
"""SigLIP's mean and deviation: pixels become -1..1."""


class CreateError(FlashSlothError, ValueError):
    """No FlashSloth can be made of a backbone: what it is, and what was expected."""


@dataclass(frozen=True)
class VisionBackbone:
    """An encoder: `state` by its own names; `image_mean` and `image_std` per channel, of pixels 0..1."""

    name: str
    config: Any
    state: dict[str, torch.Tensor]
    image_mean: list[float]
    image_std: list[float]


@dataclass(frozen=True)
class LanguageBackbone:
    """A language model: `state` of its decoder by its own names, and its head.

    Attributes:
        embedding_name: the name of the input embeddings in `state`.
        head_weight: None where it is the embeddings'.
        head_bias: None where the head has none.
    """

    name: str
    config: Any
    state: dict[str, torch.Tensor]
    embedding_name: str
    head_weight: torch.Tensor | None
    head_bias: torch.Tensor | None

    @property
    def is_tied(self) -> bool:
        return self.head_weight is None

    @property
    def vocab_size(self) -> int:
        """Embedding rows."""
        return self.state[self.embedding_name].shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.state[self.embedding_name].dtype

    def with_rows(self, rows: int) -> LanguageBackbone:
        """The same with `rows` embedding rows, head included; each new one is the mean of the old."""
        if rows == self.vocab_size:
            return self
        config = copy.deepcopy(self.config)
        config.vocab_size = rows
        state = {**self.state, self.embedding_name: _grown(self.state[self.embedding_name], rows)}
        weight = None if self.head_weight is None else _grown(self.head_weight, rows)
        bias = None if self.head_bias is None else _grown(self.head_bias, rows)
        return dataclasses.replace(self, config=config, state=state, head_weight=weight, head_bias=bias)


def load_vision_backbone(name: str | Path) -> VisionBackbone:
    """Load an encoder, or the picture tower of a two-tower model.

    Raises:
        CreateError: if it is no ViT-like encoder of fixed square input.
    """
    from transformers import AutoConfig, AutoModel

    config = _load(AutoConfig.from_pretrained, name)
    is_two_towered = hasattr(config, "vision_config")
    vision = config.vision_config if is_two_towered else config
    for field in ("image_size", "patch_size", "hidden_size", "num_hidden_layers"):
        if not isinstance(getattr(vision, field, None), int):
            raise CreateError(
                f"{name} is {vision.model_type!r}, whose {field} is {getattr(vision, field, None)!r}: expected a "
                f"ViT-like encoder of fixed square input (SigLIP, SigLIP2 of fixed size, CLIP)"
            )
    model = _load(AutoModel.from_pretrained, name)
    if is_two_towered:
        model = getattr(model, "vision_model", None)
        if model is None:
            raise CreateError(
                f"{name} is {config.model_type!r}, which has no vision_model of its own: name the encoder"
            )
    mean, std = _normalisation(name)
    return VisionBackbone(str(name), copy.deepcopy(vision), dict(model.state_dict()), mean, std)


def load_language_backbone(name: str | Path) -> LanguageBackbone:
    """Load a decoder-only language model.

    Raises:
        CreateError: if it is another kind of model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from flashsloth.model.backbones import decoder_layers

    config = _load(AutoConfig.from_pretrained, name)
    expected = "expected a decoder-only language model (Phi, Qwen, Llama, ...)"
    if getattr(config, "is_encoder_decoder", False):
        raise CreateError(f"{name} is {config.model_type!r}, an encoder-decoder: {expected}")
    if hasattr(config, "vision_config"):
        raise CreateError(f"{name} is {config.model_type!r}, which sees already: {expected}")
    causal = _load(AutoModelForCausalLM.from_pretrained, name)
    base, head = causal.base_model, causal.get_output_embeddings()
    try:
        decoder_layers(base)
    except ValueError as error:
        raise CreateError(f"{name} is {config.model_type!r}: {error}") from error
    if not isinstance(head, nn.Linear):
        raise CreateError(f"{name} is {config.model_type!r} with a {type(head).__name__} head, expected a linear layer")
    embeddings = base.get_input_embeddings().weight
    is_tied = head.weight is embeddings
    return LanguageBackbone(
        name=str(name),
        config=copy.deepcopy(base.config),
        state=dict(base.state_dict()),
        embedding_name=next(key for key, parameter in base.named_parameters() if parameter is embeddings),
        head_weight=None if is_tied else head.weight.detach(),
        head_bias=None if head.bias is None else head.bias.detach(),
    )


def one_line(error: BaseException) -> str:
    """An error's text, short."""
    return " ".join(str(error).split())[:200]


def _load(load: Callable[..., Any], name: str | Path) -> Any:
    """Load with transformers, code from elsewhere never executed, its errors worded for the user."""
    if not str(name).strip():
        raise CreateError("a backbone's name is empty; expected a folder, or a name on the hub (owner/model)")
    offline = offline_options(name)
    try:
        return load(str(name), trust_remote_code=False, **offline)
    except OSError as error:
        said = UNREACHABLE.format(name=str(name)) if offline else f"{name} cannot be loaded: {one_line(error)}"
        raise CreateError(said) from error
    except (ValueError, KeyError) as error:
        raise CreateError(f"{name} cannot be loaded: {one_line(error)}") from error


def _normalisation(name: str | Path) -> tuple[list[float], list[float]]:
    """Mean and deviation that the encoder was trained with."""
    settings = read_config_dict(name, _PREPROCESSOR)
    if settings is None:
        settings = (read_config_dict(name, _PROCESSOR) or {}).get("image_processor", {})
    if "image_mean" not in settings or "image_std" not in settings:
        logger.warning("%s has no %s with mean and deviation: taking %s", name, _PREPROCESSOR, _NEUTRAL)
        return list(_NEUTRAL), list(_NEUTRAL)
    return list(settings["image_mean"]), list(settings["image_std"])


def _grown(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """More rows, each the mean of the old; fewer are never asked for."""
    mean = tensor.float().mean(dim=0, keepdim=True).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(rows - tensor.shape[0], *tensor.shape[1:])])
