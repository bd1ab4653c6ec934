"""The published layout's flat configuration, read and written; `weight_names.py` has its tensors' names.

In: a published folder, whose flat `config.json` speaks of the language model and hardly of anything else. Out: a
:class:`FlashSlothConfig`. What the flat file leaves out is read off the tensors' shapes, or is a constant of the
published code; each is named here. On the way back: the flat file the checkpoint came with, with what has changed
since, or a new one.

Legend: P patches a view, V vision width, E query width.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashsloth.model.configuration_flashsloth import HD_GRID, STANDARD_GRID, FlashSlothConfig
from flashsloth.model.loading.folders import CONFIG, read_config_dict
from flashsloth.model.loading.safetensors_files import (
    CheckpointError,
    StoredTensor,
    read_json,
    stored_dtype,
    stored_tensors,
)
from flashsloth.model.loading.token_ids import Vocabulary, prompt_ids_of, read_vocabulary
from flashsloth.model.loading.weight_names import is_stage_2_only, to_ours

logger = logging.getLogger(__name__)
ARCHITECTURE = "FlashSlothForCausalLM"
TEXT_MODEL_TYPE = "phi"
VISION_MODEL_TYPE = "siglip_vision_model"
VISION_CONFIG = "vision_config.json"
CODE_CONSTANTS: dict[str, Any] = {"embq_layer": 7, "pool_size": 3, "projector_hidden_act": "gelu", "sap_dropout": 0.1}
"""What the published code has built in, by our configuration's names."""
TEXT_KEYS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "resid_pdrop", "embd_pdrop", "attention_dropout", "hidden_act"),
    *("max_position_embeddings", "initializer_range", "layer_norm_eps", "use_cache", "tie_word_embeddings"),
    *("rope_theta", "rope_scaling", "partial_rotary_factor", "qk_layernorm"),
)
"""The flat file's keys that are the language model's own (Phi's). The others are kept, for the way back."""
DEFAULT_NUM_QUERY_TOKENS = 9
_FEATURE_LAYER = -2
_KNOWN_IMAGE_SIZES = {(14, 27): 384}
"""(patch, grid) -> picture side, where it is not patch * grid: so400m cuts 384 px into 27 patches of 14 and drops 6."""
_KNOWN_VISION_HEADS = {768: 12, 1024: 16, 1152: 16}
"""V -> heads of SigLIP base, large and so400m; no shape tells."""
_SIGLIP_NUMBERS = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_HD_NAME = re.compile(r"(?<![A-Za-z])HD(?![A-Za-z])")
_TOWER = "model.vision_tower."
_STORED_LAYER = re.compile(rf"{re.escape(_TOWER)}encoder\.layers\.(\d+)\.")
Shapes = Mapping[str, tuple[int, ...]]
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


def is_published(name_or_path: Any, **hub: Any) -> bool:
    """Whether a folder, or a name on the hub, has the published layout.

    Fetches nothing but `config.json`, and never raises: what cannot be read is not published.
    """
    if name_or_path is None:
        return False
    return is_published_dict(read_config_dict(name_or_path, **hub))


def is_published_dict(flat: dict[str, Any] | None) -> bool:
    """Whether a configuration file is the published layout's flat one."""
    if flat is None or flat.get("model_type") != TEXT_MODEL_TYPE:
        return False
    return "mm_vision_tower" in flat or ARCHITECTURE in (flat.get("architectures") or ())


def published_config(
    folder: str | Path,
    *,
    vision_config: Any = None,
    tensors: Mapping[str, StoredTensor] | None = None,
    **overrides: Any,
) -> FlashSlothConfig:
    """The configuration of a published folder.

    Args:
        folder: the published files.
        vision_config: the encoder's configuration (object or dict); by default `vision_config.json` beside the weights,
            or else what the tensors' shapes say of a SigLIP.
        tensors: the folder's tensors, where they lie elsewhere.
        **overrides: fields of :class:`FlashSlothConfig` to set otherwise, as `image_grid=2` for a FlashSloth-HD whose
            file does not say so.

    Returns:
        The configuration, with the flat one inside as `published_config`, for the way back, and `training_stage` 1 if
        there are neither query tokens nor EmbQ.

    Raises:
        CheckpointError: if the folder is not of that layout, or its sizes cannot be read off.
        ValueError: if sizes do not fit together.
    """
    folder = Path(folder)
    flat = read_json(folder / CONFIG)
    if not is_published_dict(flat):
        raise CheckpointError(f"{folder / CONFIG} is not in the published layout: expected model_type 'phi', mm_ keys")
    tensors = stored_tensors(folder) if tensors is None else tensors
    # Tensors that the table of names does not know are left to the strict check.
    shapes = {name: tensor.shape for old, tensor in tensors.items() if (name := to_ours(old)) is not None}
    vocabulary = read_vocabulary(folder, flat)
    fields: dict[str, Any] = {
        **CODE_CONSTANTS,
        **_sizes_of(shapes, folder),
        "vision_config": vision_config or _vision_config(folder, flat, shapes),
        "text_config": _text_config(flat, vocabulary),
        "vision_feature_layer": flat.get("mm_vision_select_layer", _FEATURE_LAYER),
        "image_grid": _image_grid(flat, folder),
        "embq_num_heads": flat["num_attention_heads"],
        "image_token_id": vocabulary.image,
        "query_token_id": vocabulary.query,
        "anchor_token_id": vocabulary.anchor,
        "prompt_ids": prompt_ids_of(vocabulary, flat["vocab_size"]),
        "lm_head_bias": "lm_head.bias" in shapes,
        "tie_word_embeddings": bool(flat.get("tie_word_embeddings", False)),
        "dtype": stored_dtype(tensors.values()) or flat.get("torch_dtype"),
        "published_config": flat,
    }
    if not any(is_stage_2_only(name) for name in shapes):
        fields["training_stage"] = 1
    fields.update(overrides)
    try:
        return FlashSlothConfig(**fields)
    except ValueError as error:
        raise CheckpointError(
            f"{folder}: {error}. Say what its files do not tell, as in query_token_id=500 (--set on the command line)"
        ) from error


def _shape(shapes: Shapes, name: str, dimensions: int, folder: Path) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions:
        found = "no such tensor" if shape is None else f"shape {list(shape)}"
        raise CheckpointError(f"{folder}: {name} is needed to read off the sizes: found {found}")
    return shape


def _sizes_of(shapes: Shapes, folder: Path) -> dict[str, int]:
    """Q and E; of a stage-1 checkpoint, which has neither, what stage 2 of the published code would make."""
    width = _shape(shapes, f"{_TOWER}embeddings.patch_embedding.weight", 4, folder)[0]
    queries = shapes.get("model.query_tokens.weight", (DEFAULT_NUM_QUERY_TOKENS,))
    query_size = shapes.get("model.embedded_query.down_text.weight", (width // 2,))
    return {"num_query_tokens": queries[0], "query_size": query_size[0]}


def _vision_config(folder: Path, flat: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    """`vision_config.json`, or a SigLIP of the shapes found."""
    if (folder / VISION_CONFIG).is_file():
        return {"model_type": VISION_MODEL_TYPE, **read_json(folder / VISION_CONFIG)}
    width, channels, patch, _ = _shape(shapes, f"{_TOWER}embeddings.patch_embedding.weight", 4, folder)
    patches = _shape(shapes, f"{_TOWER}embeddings.position_embedding.weight", 2, folder)[0]
    inner = _shape(shapes, f"{_TOWER}encoder.layers.0.mlp.fc1.weight", 2, folder)[0]
    grid = math.isqrt(patches)
    heads = _KNOWN_VISION_HEADS.get(width)
    if grid * grid != patches or heads is None:
        raise CheckpointError(
            f"{folder}: an encoder of width {width} with {patches} positions is not a SigLIP known here: put its "
            f"configuration beside the weights as {VISION_CONFIG}, or pass vision_config"
        )
    layers = {int(match[1]) for name in shapes if (match := _STORED_LAYER.match(name))}
    feature_layer = flat.get("mm_vision_select_layer", _FEATURE_LAYER)
    # Stored are the layers up to the feature layer; counted from the end, the others are known to have been there.
    beyond = -1 - feature_layer if feature_layer < 0 else 0
    return {
        "model_type": VISION_MODEL_TYPE,
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "image_size": _KNOWN_IMAGE_SIZES.get((patch, grid), patch * grid),
        "intermediate_size": inner,
        "num_hidden_layers": len(layers) + beyond,
        "num_attention_heads": heads,
        **_SIGLIP_NUMBERS,
    }


def _text_config(flat: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Phi's own keys, with the ids that really begin, end and fill texts (the published file has the wrong ones)."""
    fields = {key: flat[key] for key in TEXT_KEYS if key in flat}
    ids = {"bos_token_id": vocabulary.bos, "eos_token_id": vocabulary.eos, "pad_token_id": vocabulary.pad}
    return {"model_type": TEXT_MODEL_TYPE, **fields, **ids}


def _image_grid(flat: dict[str, Any], folder: Path) -> int:
    """What `image_hd` says; older files lack it, and then the folder's or the hub's name does: FlashSloth_HD-3.2B."""
    if "image_hd" in flat:
        return HD_GRID if flat["image_hd"] else STANDARD_GRID
    hub_names = [part for part in folder.absolute().parts if part.startswith("models--")]
    names = [folder.absolute().name, *hub_names, str(flat.get("_name_or_path", ""))]
    if any(_HD_NAME.search(name) for name in names):
        logger.info("%s does not say image_hd; taken for HD by its name", folder)
        return HD_GRID
    return STANDARD_GRID


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
