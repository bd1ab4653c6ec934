"""A new FlashSloth, still to be trained, from two pretrained backbones.

In: a ViT-like encoder (SigLIP, SigLIP2 of fixed size, CLIP, ...; of a two-tower model, the picture tower) and a
decoder-only language model (Phi, Qwen, Llama, ...), each a folder or a name on the hub. Out: a folder with
configuration, weights and processor, ready for stage 1.

The backbones keep their weights; the tokenizer gets `<learnable>`, `<image>` and what else it lacks. What is new is
drawn as the model draws it: SAP, projector, query tokens and EmbQ, whose way back into the language model is zero, so
that the language model starts as itself.

Legend: V vision width, D language-model width, E query width, H heads of EmbQ.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flashsloth.checkpoint.pretrained_backbones import (
    CreateError,
    LanguageBackbone,
    VisionBackbone,
    load_language_backbone,
    load_vision_backbone,
    one_line,
)
from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN
from flashsloth.model.configuration_flashsloth import HD_GRID, STANDARD_GRID, FlashSlothConfig
from flashsloth.model.loading.folders import appearing_folder, offline_options
from flashsloth.model.loading.loading import without_report
from flashsloth.model.loading.preflight import expected_shapes
from flashsloth.model.prompt_layout import prompt_ids

END_TOKEN, PAD_TOKEN = "</s>", "<pad>"
ANCHORS = (" .", ".")
"""What the anchor is where it is one token; the first is the published model's (764 in Phi-2's vocabulary)."""
logger = logging.getLogger(__name__)
PUBLISHED_EMBQ_DEPTH = 7 / 32
"""Where EmbQ stands in the published model: before layer 7 of 32."""
PUBLISHED_POOL_SIZE = 3
DEFAULT_NUM_QUERY_TOKENS = 9
_FEATURE_LAYER = -2
"""F leaves the layer before the last, as in the published model."""
_TOWER, _LANGUAGE_MODEL, _HEAD = "model.vision_tower.", "model.language_model.", "lm_head."
_NEW_PARTS = (
    *("model.spatial_attention_pooling.", "model.projector."),
    *("model.query_tokens.", "model.embedded_query."),
)


@dataclass(frozen=True)
class ExtendedTokenizer:
    """A tokenizer and what the model must know of it.

    Attributes:
        tokenizer: a fast tokenizer.
        image_token_id, query_token_id, anchor_token_id, eos_token_id, pad_token_id: ids.
        bos_token: what it puts before every text by itself; empty if nothing.
        rows: embedding rows the model needs.
    """

    tokenizer: Any
    image_token_id: int
    query_token_id: int
    anchor_token_id: int
    eos_token_id: int
    pad_token_id: int
    bos_token: str
    rows: int


def extended_tokenizer(name: str, vocab_size: int) -> ExtendedTokenizer:
    """Load a tokenizer and add what it lacks.

    Raises:
        CreateError: if there is none, or it is not a fast one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, padding_side="left", clean_up_tokenization_spaces=False, **offline_options(name)
        )
    except (OSError, ValueError) as error:
        raise CreateError(f"{name} has no tokenizer that can be loaded: {one_line(error)}") from error
    if not tokenizer.is_fast:
        raise CreateError(f"{name}: {type(tokenizer).__name__} is a slow tokenizer, expected one with a tokenizer.json")
    ids = tokenizer("a")["input_ids"]
    begins = tokenizer.bos_token_id is not None and ids and ids[0] == tokenizer.bos_token_id
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": END_TOKEN})
    if tokenizer.pad_token is None:
        spare = tokenizer.unk_token if tokenizer.unk_token != tokenizer.eos_token else None
        tokenizer.add_special_tokens({"pad_token": spare or PAD_TOKEN})
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [QUERY_TOKEN, IMAGE_TOKEN]}, replace_extra_special_tokens=False
    )
    return ExtendedTokenizer(
        tokenizer=tokenizer,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        query_token_id=tokenizer.convert_tokens_to_ids(QUERY_TOKEN),
        anchor_token_id=_anchor(tokenizer, name),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token=str(tokenizer.bos_token) if begins else "",
        rows=max(vocab_size, max(tokenizer.get_vocab().values()) + 1),
    )


def _anchor(tokenizer: Any, name: str) -> int:
    for text in ANCHORS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            return int(ids[0])
    raise CreateError(f"{name}: the tokenizer has no single token for '.', which anchors the query tokens")


@dataclass(frozen=True)
class NewSizes:
    """FlashSloth's own numbers; None is the published model's, in proportion.

    Attributes:
        hd: whether pictures are seen in five views.
        num_query_tokens: query tokens a turn.
        query_size: E; by default half of V.
        embq_layer: the decoder layer before which EmbQ stands; by default 7/32 of the depth.
        embq_num_heads: H; by default the largest divisor of E and V that is not above the language model's heads.
        pool_size: side of SAP's windows; by default 3, or the divisor of the patch grid that is nearest.
    """

    hd: bool = False
    num_query_tokens: int = DEFAULT_NUM_QUERY_TOKENS
    query_size: int | None = None
    embq_layer: int | None = None
    embq_num_heads: int | None = None
    pool_size: int | None = None


def create(
    vision: str | Path,
    llm: str | Path,
    out: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    seed: int = 0,
    max_shard_size: int | str = "5GB",
    **sizes: Any,
) -> Path:
    """Create a FlashSloth of an encoder and a language model.

    Args:
        vision: the encoder.
        llm: the language model, with its tokenizer.
        out: a folder that does not exist yet, or is empty.
        dtype: the weights' type; "auto" is the language model's own.
        seed: of the new parts' random numbers.
        max_shard_size: of the weight files.
        **sizes: see :class:`NewSizes`.

    Returns:
        The folder.

    Raises:
        CreateError: if a backbone cannot be used; says what it is and what is expected.
        ValueError: if sizes do not fit together.
    """
    chosen = NewSizes(**sizes)
    out = Path(out)
    with appearing_folder(out) as work:
        encoder, language = load_vision_backbone(vision), load_language_backbone(llm)
        tokenizer = extended_tokenizer(str(llm), language.vocab_size)
        language = language.with_rows(tokenizer.rows)
        config = _config(encoder, language, tokenizer, chosen)
        model = _model(config, encoder, language, language.dtype if dtype == "auto" else dtype, seed)
        _check_features(model, encoder)
        processor = _processor(config, encoder, tokenizer)
        model.config.prompt_ids = prompt_ids(processor)
        model.save_pretrained(work, max_shard_size=max_shard_size)
        processor.save_pretrained(work)
    sizes_of = {name: parameter.numel() for name, parameter in model.named_parameters()}
    new = sum(size for name, size in sizes_of.items() if name.startswith(_NEW_PARTS))
    logger.info("%s: %.2f B parameters, of them new %.1f M", out, sum(sizes_of.values()) / 1e9, new / 1e6)
    return out


def _config(
    encoder: VisionBackbone, language: LanguageBackbone, tokenizer: ExtendedTokenizer, sizes: NewSizes
) -> FlashSlothConfig:
    """Every number: the backbones' own, what was asked for, and the published model's in proportion."""
    vision, text = encoder.config, language.config
    text.eos_token_id = tokenizer.eos_token_id
    text.pad_token_id = tokenizer.pad_token_id
    width, depth = vision.hidden_size, text.num_hidden_layers
    query_size = width // 2 if sizes.query_size is None else sizes.query_size
    layer = sizes.embq_layer
    if layer is None:
        layer = min(max(1, round(PUBLISHED_EMBQ_DEPTH * depth)), depth - 1)
    heads = sizes.embq_num_heads
    if heads is None:
        heads = largest_divisor(math.gcd(query_size, width), text.num_attention_heads)
    pool_size = sizes.pool_size
    if pool_size is None:
        pool_size = nearest_divisor(vision.image_size // vision.patch_size, PUBLISHED_POOL_SIZE)
    return FlashSlothConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.image_token_id,
        query_token_id=tokenizer.query_token_id,
        anchor_token_id=tokenizer.anchor_token_id,
        num_query_tokens=sizes.num_query_tokens,
        query_size=query_size,
        embq_layer=layer,
        embq_num_heads=heads,
        vision_feature_layer=_FEATURE_LAYER if vision.num_hidden_layers > 1 else -1,
        pool_size=pool_size,
        image_grid=HD_GRID if sizes.hd else STANDARD_GRID,
        lm_head_bias=language.head_bias is not None,
        tie_word_embeddings=language.is_tied,
    )


def _model(
    config: FlashSlothConfig, encoder: VisionBackbone, language: LanguageBackbone, dtype: str | torch.dtype, seed: int
) -> Any:
    """The model with the backbones' weights; what they lack is drawn."""
    from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

    state = _state(expected_shapes(config), encoder, language)
    with torch.random.fork_rng(devices=[]), without_report():
        torch.manual_seed(seed)
        model, info = FlashSlothForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
        )
    missing = [name for name in info["missing_keys"] if not name.startswith(_NEW_PARTS)]
    assert not [*missing, *info["unexpected_keys"]], info  # every name was taken from the model's own
    return model


def _state(
    expected: dict[str, tuple[int, ...]], encoder: VisionBackbone, language: LanguageBackbone
) -> dict[str, torch.Tensor]:
    """Our name -> tensor, of everything the backbones bring.

    Raises:
        CreateError: if a backbone lacks a tensor that the model needs from it, or has it in another shape.
    """
    head = {f"{_HEAD}weight": language.head_weight, f"{_HEAD}bias": language.head_bias}
    brought = {
        **{_TOWER + name: tensor for name, tensor in encoder.state.items()},
        **{_LANGUAGE_MODEL + name: tensor for name, tensor in language.state.items()},
        **{name: tensor for name, tensor in head.items() if tensor is not None},
    }
    state = {}
    for name, shape in expected.items():
        if name.startswith(_NEW_PARTS):
            continue
        tensor = brought.get(name)
        if tensor is None or tuple(tensor.shape) != shape:
            found = "none" if tensor is None else list(tensor.shape)
            source = encoder.name if name.startswith(_TOWER) else language.name
            raise CreateError(f"{source}: {name} should be {list(shape)}, found {found}: this kind cannot be used")
        state[name] = tensor
    return state


def _check_features(model: Any, encoder: VisionBackbone) -> None:
    """Look at a grey picture: what comes out must be a grid of patches, or the encoder is no ViT."""
    config = model.config
    side = config.vision_config.image_size
    pixels = torch.zeros(1, 3, side, side, dtype=model.dtype)
    with torch.no_grad():
        states = model.model.vision_tower(pixel_values=pixels, return_dict=True).last_hidden_state
    wanted = (config.num_patches, config.vision_config.hidden_size)
    if states.ndim != 3 or states.shape[1] < wanted[0] or states.shape[2] != wanted[1]:
        raise CreateError(
            f"{encoder.name}: a picture becomes {list(states.shape)}, expected [1, {wanted[0]} or more, {wanted[1]}]: "
            f"it is not a ViT-like encoder"
        )


def _processor(config: FlashSlothConfig, encoder: VisionBackbone, tokenizer: ExtendedTokenizer) -> Any:
    from flashsloth.model.chat_template import chat_template
    from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
    from flashsloth.model.processing_flashsloth import FlashSlothProcessor

    vision: Any = config.vision_config
    return FlashSlothProcessor(
        FlashSlothImageProcessorPil(
            size={"height": vision.image_size, "width": vision.image_size},
            image_grid=config.image_grid,
            image_mean=encoder.image_mean,
            image_std=encoder.image_std,
        ),
        tokenizer.tokenizer,
        chat_template=chat_template(bos_token=tokenizer.bos_token),
        num_image_tokens=config.num_image_tokens,
        num_query_tokens=config.num_query_tokens,
    )


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` nearest to `wanted`; of two, the smaller."""
    divisors = [divisor for divisor in range(1, number + 1) if number % divisor == 0]
    return min(divisors, key=lambda divisor: (abs(divisor - wanted), divisor))
