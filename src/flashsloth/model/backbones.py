"""What FlashSloth asks of the two models it joins: a ViT-like encoder and a decoder-only language model.

In: configurations and models of transformers. Out: the encoder that ends where F is taken, the language model's layers,
or a ValueError that says why this one will not do.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from flashsloth.model.configuration_flashsloth import FlashSlothConfig

_DECODER_INPUTS = {"inputs_embeds", "attention_mask", "position_ids"}
_FINAL_NORMS = ("post_layernorm", "layernorm", "layer_norm", "norm")
"""What encoders call the normalisation after their last layer, which F does not pass through."""


def make_vision_tower(config: FlashSlothConfig) -> Any:
    """The encoder up to the layer that F leaves; F is not normalised, so a final norm becomes nothing.

    Its configuration is `config.vision_config` itself: transformers finds a part by its configuration, and sets
    there which attention it uses.
    """
    cut = config.vision_tower_config()
    vision_tower = AutoModel.from_config(cut)
    for name in _FINAL_NORMS:
        if isinstance(getattr(vision_tower, name, None), nn.Module):
            setattr(vision_tower, name, nn.Identity())
    config.vision_config._attn_implementation = vision_tower.config._attn_implementation
    for module in vision_tower.modules():
        if getattr(module, "config", None) is cut or module is vision_tower:
            module.config = config.vision_config
    return vision_tower


def decoder_layers(language_model: Any) -> nn.ModuleList:
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


def check_precision(language_model: Any, inputs_embeds: torch.Tensor) -> None:
    """Refuse float16 where Phi's attention scores, multiplied before they are scaled, overflow it."""
    device = inputs_embeds.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs_embeds.dtype
    text = language_model.config
    if dtype == torch.float16 and text.model_type == "phi" and text._attn_implementation == "eager":
        raise ValueError("float16 with eager attention overflows in Phi: use bfloat16, or attn_implementation='sdpa'")


def embedding_name(model: Any) -> str:
    """The parameter name of the input embeddings, whatever the language model calls them."""
    weight = model.get_input_embeddings().weight
    return next(name for name, parameter in model.named_parameters() if parameter is weight)
