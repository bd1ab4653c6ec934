"""Every model that is measured, tiny: the same classes and options, some thousand parameters."""

from __future__ import annotations

import copy
from typing import Any

import tiny
from transformers import GraniteConfig, SiglipVisionConfig

from flashsloth.benchmark.models import BASELINES, Baseline
from flashsloth.benchmark.models.minicpm_v2 import TEXT as MINICPM_TEXT
from flashsloth.benchmark.models.minicpm_v2 import VISION as MINICPM_VISION
from flashsloth.benchmark.models.minicpm_v2 import MiniCpmV2Config
from flashsloth.model.configuration_flashsloth import FlashSlothConfig

IMAGE_ID, QUERY_ID = 7, 8
SMALL_TEXT = {
    "vocab_size": 600,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SMALL_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def flashsloth(**changes: Any) -> FlashSlothConfig:
    """The sizes of `tiny.py`, without a tokenizer."""
    fields = {
        "vision_config": dict(tiny.VISION),
        "text_config": dict(tiny.TEXT),
        "image_token_id": IMAGE_ID,
        "query_token_id": QUERY_ID,
        "anchor_token_id": 9,
        "num_query_tokens": 3,
        "query_size": 16,
        "embq_layer": 2,
        "embq_num_heads": 4,
    }
    return FlashSlothConfig(**{**fields, **changes})


def small_config(name: str) -> Any:
    """A baseline's configuration with small numbers in the places of its own."""
    if name == "minicpm-v2":
        text = {**MINICPM_TEXT, **SMALL_TEXT, "num_key_value_heads": 4}
        return MiniCpmV2Config(SiglipVisionConfig(**{**MINICPM_VISION, **SMALL_VISION}), GraniteConfig(**text))
    config = copy.deepcopy(BASELINES[name].true_config())
    fields = config.to_dict()
    text, vision = fields.pop("text_config"), fields.pop("vision_config")
    vision.update(SMALL_VISION)
    text.update(SMALL_TEXT)
    text.pop("head_dim", None)  # so that it is worked out anew
    if name == "qwen2-vl-2b":
        vision.update(depth=2, embed_dim=32, num_heads=2, hidden_size=SMALL_TEXT["hidden_size"])
        for shadowed in ("num_hidden_layers", "num_attention_heads", "intermediate_size"):
            vision.pop(shadowed)
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 2]}
        text.pop("layer_types")
        fields.update(image_token_id=500, video_token_id=501, vision_start_token_id=502, vision_end_token_id=503)
    elif name == "lfm2-vl-1.6b":
        text["layer_types"] = ["conv", "full_attention", "conv"]
        fields["projector_hidden_size"] = 40
        text.pop("full_attn_idxs", None)
    else:
        fields["image_token_id"] = 500
    return type(config)(text_config=text, vision_config=vision, **fields)


def small_baseline(name: str) -> Baseline:
    """A baseline whose model takes no time to run; its picture preparation is the true one."""
    return BASELINES[name](small_config(name))
