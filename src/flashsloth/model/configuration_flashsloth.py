"""Every number of a FlashSloth, checked as it comes in.

In: two transformers configurations (a ViT-like encoder, a decoder-only language model) and FlashSloth's own sizes.
Out: a :class:`FlashSlothConfig` whose derived sizes (patches, windows, visual tokens) the other files read.

Legend: P patches a view, R windows (visual tokens) a view, V vision width, D language-model width, E query width,
Q query tokens a turn, H heads of EmbQ. Defaults are the published FlashSloth-3.2B (arXiv 2412.04317).
"""

from __future__ import annotations

import copy
import math
import re
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers import __version__ as transformers_version
from transformers.activations import ACT2FN
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

STANDARD_GRID = 1
HD_GRID = 2
"""HD cuts the padded picture into 2x2 tiles, beside the whole picture: five views."""
STANDARD, HD = "standard", "hd"
RESOLUTIONS = (STANDARD, HD)
"""How much of a picture an HD model is shown: the whole view alone, or its tiles as well."""

PHI2_TEXT_CONFIG: dict[str, Any] = {
    "model_type": "phi",
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "partial_rotary_factor": 0.4,
    "max_position_embeddings": 2048,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "resid_pdrop": 0.1,
    "bos_token_id": None,
    "eos_token_id": 50296,
    "pad_token_id": 50256,
}
SO400M_VISION_CONFIG: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_SCALED_LOGITS = {"final_logit_softcapping": None, "logits_scaling": 1.0, "logit_scale": 1.0, "lm_head_multiplier": 1.0}
"""Language models whose head does more than a linear layer, by the config field that says so, and its neutral value."""

_KINDS: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "str": str}
"""How a field's type is written -> what may stand in it; true and false are no numbers."""
_MOST_LAYERS, _MOST_PIXELS = 4096, 1 << 16
_VISION_SIZES = ("image_size", "patch_size", "hidden_size", "num_hidden_layers")
_TEXT_SIZES = ("hidden_size", "num_hidden_layers", "vocab_size")
_OTHER_SIZES = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "max_position_embeddings")
_MOST = {"num_hidden_layers": _MOST_LAYERS, "image_size": _MOST_PIXELS}
"""Beyond these, a configuration is damaged; so many layers or positions would take hours to be made."""
_STRICT = re.compile(r"Field '(\w+)' expected (.+), got \w+ \(value: (.+)\)")
"""How huggingface_hub words a field of another type."""
_MINIMA = {"num_query_tokens": 1, "query_size": 1, "embq_num_heads": 1, "image_grid": STANDARD_GRID, "pool_size": 1}


@strict
class FlashSlothConfig(PreTrainedConfig):
    r"""Configuration of a FlashSloth.

    Args:
        vision_config: configuration (object or dict) of a ViT-like encoder: SigLIP, SigLIP2 of fixed size, CLIP, ...
        text_config: configuration (object or dict) of a decoder-only language model.
        image_token_id: placeholder id of one visual token.
        query_token_id: placeholder id of one query token (`<learnable>` in the published tokenizer).
        anchor_token_id: the token whose embedding is added to every query token (`.`, 764 in Phi-2's vocabulary).
        num_query_tokens: Q, query tokens a turn.
        query_size: E, the width EmbQ attends in; a multiple of `embq_num_heads`.
        embq_layer: index of the decoder layer *before* which EmbQ acts (7: before the eighth).
        embq_num_heads: H, heads of EmbQ's two attentions; divides E and V.
        vision_feature_layer: which hidden state of the encoder is F; -2 is the one before the last layer.
        pool_size: side of SAP's square windows, in patches; divides the patch grid's side.
        sap_dropout: dropout inside SAP's scorer while training.
        projector_hidden_act: activation between the projector's two linear layers.
        image_grid: 1 for one view a picture, g > 1 for the whole picture and g x g tiles of it (2 is FlashSloth-HD).
        lm_head_bias: whether the language model's head has a bias (Phi's has).
        initializer_range: standard deviation of freshly drawn weights.
        prompt_ids: how the tokenizer writes a prompt's fixed words (`prompt_layout.py`), for who has ids alone.

    Raises:
        ValueError: where sizes do not fit together; the message names both sizes and what would fit.
    """

    model_type = "flashsloth"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": AutoConfig, "text_config": AutoConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache", "image_outputs"]

    vision_config: Any = None
    text_config: Any = None
    image_token_id: int = 50297
    query_token_id: int = 50295
    anchor_token_id: int = 764
    num_query_tokens: int = 9
    query_size: int = 576
    embq_layer: int = 7
    embq_num_heads: int = 32
    vision_feature_layer: int = -2
    pool_size: int = 3
    sap_dropout: float = 0.1
    projector_hidden_act: str = "gelu"
    image_grid: int = STANDARD_GRID
    lm_head_bias: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    prompt_ids: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _sub_config("vision_config", self.vision_config, SO400M_VISION_CONFIG)
        self.text_config = _sub_config("text_config", self.text_config, PHI2_TEXT_CONFIG)
        super().__post_init__(**kwargs)
        _check_sizes(self)

    @property
    def patch_grid(self) -> int:
        """Patches along one side of a view (27 for 384 px and 14 px patches)."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def num_patches(self) -> int:
        """P, patches a view."""
        return self.patch_grid**2

    @property
    def num_windows(self) -> int:
        """R, SAP windows a view, and so visual tokens a view."""
        return (self.patch_grid // self.pool_size) ** 2

    @property
    def num_views(self) -> int:
        """Views a picture: 1, or the whole picture and `image_grid`² tiles."""
        return 1 if self.image_grid == STANDARD_GRID else 1 + self.image_grid**2

    @property
    def num_image_tokens(self) -> int:
        """Visual tokens of a picture with all its views (81 standard, 405 HD)."""
        return self.num_views * self.num_windows

    @property
    def view_counts(self) -> tuple[int, ...]:
        """How many views a picture may have: all, or of an HD model the whole view alone as well."""
        return (1,) if self.num_views == 1 else (1, self.num_views)

    @property
    def num_vision_layers(self) -> int:
        """Encoder layers that are run (and stored): those up to `vision_feature_layer`."""
        total = self.vision_config.num_hidden_layers
        return total + 1 + self.vision_feature_layer if self.vision_feature_layer < 0 else self.vision_feature_layer

    def vision_tower_config(self) -> PreTrainedConfig:
        """The encoder's configuration cut down to the layers that are run, without a pooling head."""
        config = copy.deepcopy(self.vision_config)
        config.num_hidden_layers = self.num_vision_layers
        config.vision_use_head = False  # SigLIP's; some versions of transformers read it without declaring it
        return config


def views_of(resolution: str | None, image_grid: int) -> int:
    """Views of a picture at a resolution; None for all that a model of this grid has.

    Raises:
        ValueError: for a resolution that there is not, or that this model does not have.
    """
    if resolution not in (None, *RESOLUTIONS):
        raise ValueError(f"resolution is {resolution!r}, expected one of {', '.join(RESOLUTIONS)}")
    if resolution == HD and image_grid == STANDARD_GRID:
        raise ValueError(
            f"resolution is {HD!r}, but this model sees one view of a picture: leave it out, or load an HD model"
        )
    return 1 if resolution == STANDARD or image_grid == STANDARD_GRID else 1 + image_grid**2


def _sub_config(name: str, value: dict | PreTrainedConfig | None, default: dict[str, Any]) -> PreTrainedConfig:
    """Make a configuration object of what the user gave; an absent one is the published model's."""
    if isinstance(value, PreTrainedConfig):
        return value
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is {type(value).__name__}, expected a configuration of transformers or a dict")
    fields = dict(default if value is None else value)
    kind = fields.pop("model_type", default["model_type"])
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ValueError(f"{name}.model_type is {kind!r}, expected one that transformers {transformers_version} has")
    for size, most in _MOST.items():  # now, because some configurations make lists of that length
        if isinstance(fields.get(size), int) and fields[size] > most:
            raise ValueError(f"{name}.{size} is {fields[size]}, expected at most {most}")
    try:
        return AutoConfig.for_model(kind, **fields)
    except Exception as error:  # each configuration of transformers checks its fields in its own way
        raise ValueError(f"{name}{_without_class(error)}") from error


def _without_class(error: Exception) -> str:
    """`.hidden_size is '64', expected int`, or what else an error says."""
    said = " ".join(str(error).split())
    match = _STRICT.search(said)
    return f".{match[1]} is {match[3]}, expected {match[2]}" if match else f": {said}"


def _check_types(config: FlashSlothConfig) -> None:
    """Each of FlashSloth's own fields is of its type; transformers asks only after sizes were compared."""
    for name, kind in FlashSlothConfig.__annotations__.items():
        value = getattr(config, name, None)
        if kind in _KINDS and (not isinstance(value, _KINDS[kind]) or isinstance(value, bool) != (kind == "bool")):
            raise ValueError(f"{name} is {value!r}, expected {kind}")


def _check_parts(config: FlashSlothConfig) -> None:
    """The sizes of encoder and language model are there, and at least 1."""
    vision, text = config.vision_config, config.text_config
    needs = {
        "vision_config": (
            _VISION_SIZES,
            "a ViT-like encoder of fixed square input (SigLIP, SigLIP2 of fixed size, CLIP)",
        ),
        "text_config": (
            _TEXT_SIZES,
            "a decoder-only language model (Phi, Qwen2, Llama, ...); of a larger model, give the language model's "
            "configuration",
        ),
    }
    for part, (sizes, expected) in needs.items():
        found = getattr(config, part)
        for name in sizes:
            if not isinstance(getattr(found, name, None), int):
                raise ValueError(
                    f"{part} of type {found.model_type!r} has no integer {name!r}: FlashSloth needs {expected}"
                )
        for name in (*sizes, *_OTHER_SIZES):
            size = getattr(found, name, None)
            if isinstance(size, bool):  # an int of Python's, and older transformers take it for one
                raise ValueError(f"{part}.{name} is {size}, expected a whole number")
            if isinstance(size, int) and not 1 <= size <= _MOST.get(name, size):
                most = f"1 to {_MOST[name]}" if name in _MOST else "at least 1"
                raise ValueError(f"{part}.{name} is {size}, expected {most}")
    if vision.patch_size > vision.image_size:
        raise ValueError(
            f"vision_config.patch_size is {vision.patch_size}, expected at most the image_size, {vision.image_size}"
        )
    heads = getattr(vision, "num_attention_heads", 1)
    if isinstance(heads, int) and vision.hidden_size % heads:
        raise ValueError(f"vision_config.num_attention_heads {heads} does not divide hidden_size {vision.hidden_size}")
    heads = getattr(text, "num_attention_heads", None)
    if isinstance(heads, int) and heads > text.hidden_size:
        raise ValueError(f"text_config.num_attention_heads is {heads}, expected at most hidden_size {text.hidden_size}")


def _check_sizes(config: FlashSlothConfig) -> None:
    """Refuse sizes that cannot work together, naming both and a way out."""
    vision, text = config.vision_config, config.text_config
    _check_types(config)
    _check_parts(config)
    for name, minimum in _MINIMA.items():
        if getattr(config, name) < minimum:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least {minimum}")
    if not 0.0 <= config.sap_dropout < 1.0:
        raise ValueError(f"sap_dropout is {config.sap_dropout}, expected 0 or more and less than 1")
    if config.projector_hidden_act not in ACT2FN:
        raise ValueError(
            f"projector_hidden_act is {config.projector_hidden_act!r}, expected one of {', '.join(sorted(ACT2FN))}"
        )
    if config.patch_grid % config.pool_size:
        divisors = [n for n in range(1, config.patch_grid + 1) if config.patch_grid % n == 0]
        raise ValueError(
            f"pool_size {config.pool_size} does not divide the {config.patch_grid}x{config.patch_grid} patch grid "
            f"({vision.image_size} px in {vision.patch_size} px patches): choose one of {divisors}"
        )
    for name, width in (("query_size", config.query_size), ("vision hidden_size", vision.hidden_size)):
        if width % config.embq_num_heads:
            raise ValueError(f"embq_num_heads {config.embq_num_heads} does not divide {name} {width}")
    if not 0 <= config.embq_layer < text.num_hidden_layers:
        raise ValueError(
            f"embq_layer {config.embq_layer} is outside the language model's layers 0..{text.num_hidden_layers - 1}"
        )
    if not 1 <= config.num_vision_layers <= vision.num_hidden_layers:
        raise ValueError(
            f"vision_feature_layer {config.vision_feature_layer} does not name a layer of an encoder with "
            f"{vision.num_hidden_layers}: expected -{vision.num_hidden_layers}..-1 or 1..{vision.num_hidden_layers}"
        )
    if not 0 <= config.initializer_range < math.inf:
        raise ValueError(f"initializer_range is {config.initializer_range}, expected 0 or more")
    for name in ("image_token_id", "query_token_id", "anchor_token_id"):
        if not 0 <= getattr(config, name) < text.vocab_size:
            raise ValueError(f"{name} {getattr(config, name)} is outside the vocabulary 0..{text.vocab_size - 1}")
    if config.image_token_id == config.query_token_id:
        raise ValueError(f"image_token_id and query_token_id are both {config.image_token_id}: they must differ")
    for name, neutral in _SCALED_LOGITS.items():
        value = getattr(text, name, None)
        if value not in (None, neutral):
            raise ValueError(
                f"text_config of type {text.model_type!r} scales its logits ({name}={value}), which FlashSloth's head "
                f"does not: choose a language model whose head is a linear layer"
            )


__all__ = ["HD", "RESOLUTIONS", "STANDARD", "FlashSlothConfig", "views_of"]
