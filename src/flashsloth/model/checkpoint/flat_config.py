"""Our configuration written as the published layout's flat one.

In: a :class:`FlashSlothConfig` and the weights' type. Out: what `config.json` holds in the published layout: the file
the checkpoint came with, where it came from there, with what has changed since; or a new one.
"""

from __future__ import annotations

from typing import Any

from flashsloth.model.checkpoint.published import (
    ARCHITECTURE,
    CODE_CONSTANTS,
    DEFAULT_NUM_QUERY_TOKENS,
    TEXT_KEYS,
    TEXT_MODEL_TYPE,
    VISION_MODEL_TYPE,
)
from flashsloth.model.checkpoint.weight_files import CheckpointError
from flashsloth.model.configuration_flashsloth import HD_GRID, STANDARD_GRID, FlashSlothConfig

_ROPE_KEYS = ("rope_theta", "rope_scaling", "partial_rotary_factor")
_ALWAYS: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "image_aspect_ratio": "square",
    "image_hd": False,
    "mm_projector_type": "mlp2x_gelu",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_tower": "siglip",
    "model_type": TEXT_MODEL_TYPE,
    "rope_scaling": None,
    "use_mm_proj": True,
}
"""What every published configuration says."""


def flat_config(config: FlashSlothConfig, dtype: str | None = None) -> dict[str, Any]:
    """The flat configuration of a model.

    Args:
        config: a configuration the published layout can express.
        dtype: the weights' type, as torch names it; None where they are of several.

    Raises:
        CheckpointError: if the published layout cannot express the model; says why.
    """
    _check_expressible(config)
    recorded = getattr(config, "published_config", None)
    now = _current(config) | ({} if dtype is None else {"torch_dtype": dtype})
    if recorded is None:
        return {**_ALWAYS, **now}
    # The recorded file keeps its words (and its wrong end token); what has another value now is what has changed.
    changed = {key: value for key, value in now.items() if recorded.get(key) is not None and recorded[key] != value}
    if "image_hd" not in recorded:
        changed.pop("image_hd", None)
    kept_ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {**recorded, **{key: value for key, value in changed.items() if key not in kept_ids}}


def _current(config: FlashSlothConfig) -> dict[str, Any]:
    """The flat keys that have a value of the model's own."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    rope = getattr(text, "rope_parameters", None) or {}
    names = (*TEXT_KEYS, "bos_token_id", "eos_token_id", "pad_token_id")
    values = {key: getattr(text, key) for key in names if key not in _ROPE_KEYS and hasattr(text, key)}
    values |= {key: rope[key] for key in _ROPE_KEYS if key in rope}
    return values | {
        "image_hd": config.image_grid == HD_GRID,
        "mm_hidden_size": vision.hidden_size,
        "mm_vision_select_layer": config.vision_feature_layer,
    }


def _check_expressible(config: FlashSlothConfig) -> None:
    """Refuse what the published code could not run."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    expected: dict[str, Any] = {
        **{key: value for key, value in CODE_CONSTANTS.items() if key != "sap_dropout"},
        "embq_num_heads": text.num_attention_heads,
        "image_grid": HD_GRID if config.image_grid > STANDARD_GRID else STANDARD_GRID,
        "lm_head_bias": True,
        "num_query_tokens": DEFAULT_NUM_QUERY_TOKENS,
        "query_size": vision.hidden_size // 2,
        "tie_word_embeddings": False,
    }
    kinds = (("encoder", vision.model_type, VISION_MODEL_TYPE), ("language model", text.model_type, TEXT_MODEL_TYPE))
    reasons = [f"its {part} is {found!r}, not {wanted!r}" for part, found, wanted in kinds if found != wanted]
    for key, value in expected.items():
        if getattr(config, key) != value:
            reasons.append(f"its {key} is {getattr(config, key)!r}, not {value!r}")
    if reasons:
        raise CheckpointError(f"the published layout cannot hold this model: {'; '.join(reasons)}")


__all__ = ["flat_config"]
