"""A picture from wherever a user has it: bytes, then header, then limits, then pixels, then RGB.

In: a path, encoded bytes, a data URL, a binary file object, a PIL image, a numpy array or a torch tensor, or a list of
them. Out: `PIL.Image.Image` of mode RGB, fully decoded, tied to no file. Anything else is a `PictureError`.
"""

import os
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, get_args

import numpy as np
from PIL import Image

from flashsloth.media.formats import decoding, parse
from flashsloth.media.limits import DEFAULT_LIMITS, MediaLimits, PictureError, refusing
from flashsloth.media.pixels import channels_last, image_from_array, plain_rgb, rgb_on_white
from flashsloth.media.quiet import quiet_decoders
from flashsloth.media.sources import encoded_picture
from flashsloth.media.tiff import is_misread

CONVERSION_FAILURES = (ValueError, OSError, ImportError)  # ImportError: colours without littlecms
TENSOR_FAILURES = (TypeError, RuntimeError)  # sparse, quantized, or without data


class Tensor(Protocol):
    """A torch tensor, without importing torch."""

    def detach(self) -> Any: ...

    def is_floating_point(self) -> bool: ...


PictureSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | Tensor
)
ImagePolicy: TypeAlias = Literal["careful", "official"]


def open_pictures(
    sources: PictureSource | Sequence[PictureSource] | None,
    *,
    limits: MediaLimits = DEFAULT_LIMITS,
    image_policy: ImagePolicy = "careful",
) -> list[Image.Image]:
    """One picture, a list or tuple of them, or None -> a list. Of a list, the error says which picture it was."""
    if sources is None:
        return []
    if not isinstance(sources, list | tuple):
        source: Any = sources
        return [open_picture(source, limits=limits, image_policy=image_policy)]
    pictures = []
    for number, source in enumerate(sources, start=1):
        try:
            pictures.append(open_picture(source, limits=limits, image_policy=image_policy))
        except PictureError as error:
            raise PictureError(f"picture {number} of {len(sources)}: {error}") from error
    return pictures


def open_picture(
    source: PictureSource, *, limits: MediaLimits = DEFAULT_LIMITS, image_policy: ImagePolicy = "careful"
) -> Image.Image:
    """One picture -> a new RGB image, decoded and detached; `PictureError` where that cannot be.

    image_policy "careful" turns it upright, lays alpha on white and narrows deep pixels rightly; "official" is the
    published code's plain `convert("RGB")`, for parity with it. Limits and formats are the same for both.
    """
    if image_policy not in get_args(ImagePolicy):
        raise ValueError(f"image_policy is {image_policy!r}; expected one of {', '.join(get_args(ImagePolicy))}")
    name, picture = _undecoded(source, limits)
    with decoding(name, picture.format or "picture"):
        picture.load()
    failed = f"{name}: pixels of mode {picture.mode} cannot become RGB"
    with refusing(failed, *CONVERSION_FAILURES, advice="save it as 8-bit RGB"):
        if image_policy == "careful":
            return rgb_on_white(picture)
        with quiet_decoders():
            rgb = plain_rgb(picture)
    rgb.info = {}
    return rgb


def _undecoded(source: Any, limits: MediaLimits) -> tuple[str, Image.Image]:
    """(name, image) whose size is within the limits and whose pixels may still be encoded."""
    if isinstance(source, Image.Image):
        limits.check_size("PIL image", *source.size)
        if is_misread(source):
            raise PictureError("PIL image: a TIFF whose pixels Pillow mixes up; pass the file's path or bytes instead")
        return "PIL image", source
    if isinstance(source, np.ndarray):
        return "array", _array_picture("array", source, limits)
    if hasattr(source, "detach") and hasattr(source, "is_floating_point"):
        with refusing("tensor: cannot be read", *TENSOR_FAILURES, advice="pass a dense tensor of uint8 or float"):
            held = source.detach().cpu()
            array = (held.float() if held.is_floating_point() else held).numpy()
        return "tensor", _array_picture("tensor", array, limits)
    name, data = encoded_picture(source, limits)
    picture = parse(name, data)
    limits.check_size(name, *picture.size)
    return name, picture


def _array_picture(name: str, array: np.ndarray, limits: MediaLimits) -> Image.Image:
    with refusing(name, ValueError):
        pixels = channels_last(array)
    limits.check_size(name, pixels.shape[1], pixels.shape[0])
    with refusing(name, ValueError):
        return image_from_array(pixels)
