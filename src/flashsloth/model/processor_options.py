"""What a call of the processor asks for, in whichever of transformers' ways it is said.

In: keyword arguments, flat (`padding=True`) or by part (`text_kwargs={"padding": True}`, `images_kwargs={...}`), and
what the tokenizer was made with. Out: :class:`TextOptions`, and the image processor's own options. An option that is
not known, or that FlashSloth cannot follow, is refused by name; one that asks for nothing (None, False) is not.
"""

# No `from __future__ import annotations`: transformers reads the annotations below as the types they name.
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs

from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorKwargs

PADDINGS = ("longest", "max_length", "do_not_pad")
_OWN = ("return_labels", "return_pixel_values")
"""Options that no other processor has."""
_SHARED = ("return_mm_token_type_ids", "return_text_replacement_offsets")
"""Options that transformers took for the tokenizer's first and for the processor's later."""
_PARTS = ("text_kwargs", "images_kwargs", "common_kwargs")
_OTHER_INPUTS = ("videos", "audio", "videos_kwargs", "audio_kwargs")
_USED = frozenset(
    {"padding", "padding_side", "pad_to_multiple_of", "truncation", "max_length", "return_tensors", *_SHARED}
    | {"return_attention_mask", "add_special_tokens", "verbose"}
)
"""The tokenizer's options that mean something here, or nothing at all: special tokens are the template's."""


class FlashSlothProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """transformers' options by part, with FlashSloth's own for pictures."""

    images_kwargs: FlashSlothImageProcessorKwargs


setattr(FlashSlothProcessorKwargs, "_defaults", {})  # noqa: B010 - no TypedDict declares what older transformers read
_TEXT = frozenset(TextKwargs.__annotations__)
_IMAGES = frozenset(FlashSlothImageProcessorKwargs.__annotations__)
OPTION_NAMES = frozenset((*_TEXT, *_IMAGES, *_SHARED, *_OWN, *_PARTS, *_OTHER_INPUTS))
"""Every keyword that a call may carry beside pictures and text."""


@dataclass(frozen=True)
class TextOptions:
    """How rows become tensors.

    Attributes:
        padding: one of `PADDINGS`; None: "longest" where there are several rows.
        padding_side: "left" or "right"; None: the tokenizer's.
        pad_to_multiple_of: rows are padded to a multiple of so many tokens.
        max_length: tokens that a row may have; None: any number.
        truncation: cut a row that has more, where what is cut is plain text; otherwise it is refused.
        return_tensors: "pt" or "np"; None: as it comes.
        return_attention_mask, return_labels, return_pixel_values, return_mm_token_type_ids,
        return_text_replacement_offsets: what comes beside `input_ids` and the position tensors.
    """

    padding: str | None = None
    padding_side: str | None = None
    pad_to_multiple_of: int | None = None
    max_length: int | None = None
    truncation: bool = False
    return_tensors: Any = None
    return_attention_mask: bool = True
    return_labels: bool = False
    return_pixel_values: bool = True
    return_mm_token_type_ids: bool = False
    return_text_replacement_offsets: bool = False


def read_options(processor: ProcessorMixin, options: Mapping[str, Any]) -> tuple[TextOptions, dict[str, Any]]:
    """What a call of `processor` asks for: how rows become tensors, and the image processor's options.

    Raises:
        ValueError: for an option that is unknown, given twice, of a value that is none of its own, or that FlashSloth
            cannot follow.
    """
    options = {name: value for name, value in options.items() if value is not None}
    _check_names(options)
    own = {name: options[name] for name in _OWN if options.get(name) is not None}
    shared = {name: bool(options.get(name) or (options.get("text_kwargs") or {}).get(name)) for name in _SHARED}
    others = {
        # Copies, since some versions of transformers empty the dicts that they are given.
        name: {key: each for key, each in value.items() if key not in _SHARED} if isinstance(value, dict) else value
        for name, value in options.items()
        if name not in (*_OWN, *_SHARED, *_OTHER_INPUTS)
    }
    tokenizer: Any = processor.tokenizer
    try:
        merged = processor._merge_kwargs(
            FlashSlothProcessorKwargs, tokenizer_init_kwargs=tokenizer.init_kwargs, **others
        )
    except (TypeError, ValueError) as error:  # transformers checks the values with validators of several kinds
        raise ValueError(" ".join(str(error).split())) from error
    text = merged["text_kwargs"]
    refused = sorted(name for name in text if name not in _USED and text[name])
    if refused:
        raise ValueError(f"{', '.join(refused)}: FlashSloth's processor has no such thing to give. Leave it out")
    truncation = _value(text.get("truncation")) not in (None, False, "do_not_truncate")
    max_length = text.get("max_length")
    if truncation and max_length is None:
        max_length = tokenizer.model_max_length
    text_options = TextOptions(
        padding=_padding(text.get("padding")),
        padding_side=text.get("padding_side"),
        pad_to_multiple_of=_tokens("pad_to_multiple_of", text.get("pad_to_multiple_of") or None),
        max_length=_tokens("max_length", max_length),
        truncation=truncation,
        return_tensors=text.get("return_tensors"),
        return_attention_mask=text.get("return_attention_mask") is not False,
        **shared,
        **own,
    )
    if text_options.padding_side not in (None, "left", "right"):
        raise ValueError(f"padding_side is {text_options.padding_side!r}, expected 'left' or 'right'")
    images, grid = merged["images_kwargs"], processor.image_processor.image_grid
    if images.get("image_grid") not in (None, grid):
        raise ValueError(
            f"image_grid is {images['image_grid']}, but this processor writes prompts for image_grid {grid}: load "
            f"model and processor with image_grid={images['image_grid']}"
        )
    return text_options, {**images, "return_tensors": "np"}


def _check_names(options: Mapping[str, Any]) -> None:
    """Refuse names that nobody knows, on either level, and inputs that FlashSloth does not read."""
    unknown = sorted(set(options) - OPTION_NAMES)
    for part, names in (("text_kwargs", _TEXT), ("images_kwargs", _IMAGES), ("common_kwargs", _TEXT | _IMAGES)):
        unknown += sorted(f"{part}[{name!r}]" for name in set(options.get(part) or ()) - names)
    if unknown:
        expected = sorted(_USED | {*_OWN, *_PARTS})
        raise ValueError(
            f"unknown options {unknown}: expected some of {expected}, or of the image processor's {sorted(_IMAGES)}"
        )
    for name in _OTHER_INPUTS:
        if options.get(name):
            raise ValueError(f"{name} was given, but FlashSloth reads pictures and text: leave it out")


def _tokens(name: str, value: Any) -> int | None:
    """A number of tokens, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}, expected a whole number of tokens over 0, or None")
    return int(value)


def _padding(value: Any) -> str | None:
    """One of `PADDINGS` for a flag, a word or transformers' enum."""
    value = _value(value)
    if value is None:
        return None
    if isinstance(value, bool):
        return "longest" if value else "do_not_pad"
    if value not in PADDINGS:
        raise ValueError(f"padding is {value!r}, expected True, False or one of {PADDINGS}")
    return str(value)


def _value(option: Any) -> Any:
    """What an enum of transformers stands for."""
    return getattr(option, "value", option)
