"""Decoded pixels of any kind become an upright 8-bit RGB picture.

In: a loaded Pillow image of any mode, or an array of pixels. Out: a new `PIL.Image.Image` of mode RGB that shares
nothing with what came in. A picture that has no right answer is a `ValueError` with a one-line reason.

    alpha               laid on white (alpha channels, palette alpha, the one transparent colour of a PNG or GIF, and
                        what a GIF's first frame leaves out)
    16-bit grey         the high byte: 0..65535 -> 0..255 (12-bit TIFF likewise)
    32-bit, float grey  the smallest of 0..1 (float alone), 0..255, 0..65535 that holds every value is black to white;
                        values outside all of them (measurements) are stretched from their least to their greatest
    colours             to sRGB where the file says that they are something else (colour.py)
    CMYK, YCbCr, LAB    Pillow's conversion where the file says nothing
    orientation         applied once: EXIF's, as the format carries it or as hexadecimal digits in a PNG text ("Raw
                        profile type exif" or "APP1", which ImageMagick and exiftool write), else XMP's. What is
                        absent, damaged or not between 1 and 8 is as good as upright. Readers of TIFF, AVIF and HEIC
                        hand out pictures that are upright already, or ask for the turn in EXIF.

Shapes: H height, W width, C channels (1 grey, 3 RGB, 4 RGBA).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from flashsloth.media.colour import in_srgb

EXIF_PREFIX = b"Exif\x00\x00"
EXIF_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
EXIF_ENTRY_BYTES = 12
EXIF_VALUE_OFFSET = 8  # bytes into an entry: tag (2), type (2), count (4), value (4)
EXIF_INTEGER_TYPES = {1: "B", 3: "H", 4: "I"}
TAG_ORIENTATION = 274
UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

RAW_PROFILE = "Raw profile type "
RAW_EXIF, RAW_XMP = ("exif", "EXIF", "APP1", "app1"), ("xmp", "XMP", "APP1", "app1")
RAW_HEAD_LINES = 3  # an empty one, the profile's name, its length in bytes
XMP_KEYS = ("XML:com.adobe.xmp", "xmp")
XMP_ORIENTATION = re.compile(rb"<?tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
WHITE_8_BIT = 255
WHITE_16_BIT = 65535
BYTE_BITS = 8
PALETTE_COLOURS = 256
GREY_16_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
DEEP_GREY_MODES = GREY_16_BIT_MODES | {"I", "F"}
ALPHA_BANDS = frozenset({"A", "a"})  # "a" is of premultiplied modes
COLOUR_KEY_MODES = frozenset({"1", "L", "RGB"})  # one colour of these may stand for "transparent"
STRAIGHT_ALPHA = {"La": "LA", "RGBa": "RGBA"}  # premultiplied mode -> the mode that Pillow converts onwards
BAND_PIXELS = 1 << 20  # pixels widened at a time, so that a 16-bit picture costs no second, wider copy
CHANNEL_COUNTS = (1, 3, 4)
HALF_LEVEL = 0.5 / WHITE_8_BIT  # a float this little outside 0..1 still rounds to black or white
TAG_BITS_PER_SAMPLE, TAG_PHOTOMETRIC = 258, 262
WHITE_IS_ZERO = 0  # value of TAG_PHOTOMETRIC


def orientation(info: dict[Any, Any]) -> int:
    """The orientation 1..8 that a picture's metadata ask for."""
    for exif in (info.get("exif"), *_raw_profiles(info, RAW_EXIF)):
        found = exif_orientation(exif)
        if found is not None:
            return found
    for xmp in (*map(info.get, XMP_KEYS), *_raw_profiles(info, RAW_XMP)):
        text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
        match = XMP_ORIENTATION.search(text) if isinstance(text, bytes) else None
        if match:
            return int(match[1])
    return UPRIGHT


def exif_orientation(exif: Any) -> int | None:
    """The orientation 1..8 that EXIF bytes ask for; None where they are absent, damaged or say something else.

    Only the first directory's orientation entry is read: nothing else in there can go wrong, or grow.
    """
    if not isinstance(exif, bytes):
        return None
    tiff = exif.removeprefix(EXIF_PREFIX).removeprefix(EXIF_PREFIX)  # some cameras write it twice
    order = EXIF_BYTE_ORDERS.get(tiff[:2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for index in range(entries):
            entry = directory + 2 + index * EXIF_ENTRY_BYTES
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == TAG_ORIENTATION and kind in EXIF_INTEGER_TYPES:
                (value,) = struct.unpack_from(order + EXIF_INTEGER_TYPES[kind], tiff, entry + EXIF_VALUE_OFFSET)
                return value if value == UPRIGHT or value in TURNS else None
    except struct.error:  # the bytes end before the directory does
        return None
    return None


def _raw_profiles(info: dict[Any, Any], kinds: tuple[str, ...]) -> list[bytes]:
    """The profiles of these kinds that stand in a PNG's texts as hexadecimal digits."""
    found = []
    for kind in kinds:
        text = info.get(RAW_PROFILE + kind)
        if isinstance(text, str):
            digits = "".join(text.split("\n")[RAW_HEAD_LINES:])
            try:
                found.append(bytes.fromhex(digits))
            except ValueError:  # damaged: as good as none
                continue
    return found


def rgb_on_white(image: Image.Image) -> Image.Image:
    """A loaded image of any mode -> a new upright RGB image without metadata. `image` is left as it was."""
    info = image.info
    turn = TURNS.get(orientation(info))
    image = _narrow_grey(image) if image.mode in DEEP_GREY_MODES else _with_valid_key(image)
    if image.has_transparency_data:
        for mode in (STRAIGHT_ALPHA.get(image.mode, image.mode), "RGBA"):
            image = image if image.mode == mode else image.convert(mode)
    if "drawn" in info:  # formats.py
        part = image.convert("RGBA").crop(info["drawn"])
        image = Image.new("RGBA", image.size)
        image.paste(part, info["drawn"])
    image = in_srgb(image, info)
    if image.mode == "RGBA":
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(image, mask=image)
    else:
        rgb = plain_rgb(image)
    rgb.info = {}
    return rgb if turn is None else rgb.transpose(turn)


def plain_rgb(image: Image.Image) -> Image.Image:
    """Pillow's own conversion to RGB; ValueError where its colours cannot be converted."""
    if image.mode != "LAB":
        return image.convert("RGB")
    from PIL.ImageCms import PyCMSError  # a library of its own, which other pictures need not load

    try:
        return image.convert("RGB")
    except PyCMSError as error:
        raise ValueError(str(error)) from error


def key_in_8_bits(key: Any, bits: int) -> Any:
    """A PNG's transparent grey or colour, stored in the file's depth of `bits`, in the depth that Pillow decodes to.

    Pillow leaves the stored number, which then names no pixel or a wrong one. 16-bit grey stays: so do its pixels.
    """
    if isinstance(key, int) and 1 < bits < BYTE_BITS:
        return key * WHITE_8_BIT // ((1 << bits) - 1)
    if isinstance(key, tuple) and bits > BYTE_BITS:
        return tuple(value >> (bits - BYTE_BITS) for value in key)
    return key


def _with_valid_key(image: Image.Image) -> Image.Image:
    """`image`, or a copy without its transparent colour where that names none: Pillow would fail on it.

    What has a palette is always copied: Pillow writes alpha into the palette of what it converts.
    """
    if "transparency" not in image.info or image.getbands()[-1] in ALPHA_BANDS:
        return image
    key = image.info["transparency"]
    if image.mode == "P":
        valid = isinstance(key, bytes) or _is_level(key)
    elif image.mode in COLOUR_KEY_MODES:
        bands = len(image.getbands())
        valid = (
            _is_level(key) if bands == 1 else isinstance(key, tuple) and len(key) == bands and all(map(_is_level, key))
        )
    else:
        valid = False
    if valid and image.mode != "P":
        return image
    copied = image.copy()
    if not valid:
        del copied.info["transparency"]
    elif isinstance(key, bytes):
        copied.info["transparency"] = key[:PALETTE_COLOURS]
    return copied


def _is_level(key: Any) -> bool:
    return isinstance(key, int) and 0 <= key <= WHITE_8_BIT


def _narrow_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or float -> mode L, by the module's table."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode in GREY_16_BIT_MODES:
        low, high, shift = 0.0, float(WHITE_16_BIT), (4 if tags.get(TAG_BITS_PER_SAMPLE) == (12,) else BYTE_BITS)
    else:
        low, high = _black_and_white(image)
        shift = BYTE_BITS if image.mode == "I" and (low, high) == (0, WHITE_16_BIT) else 0
    key = image.info.get("transparency")
    grey = Image.new("L", image.size)
    for top, band in _bands(image):
        if shift:
            levels = np.minimum(band >> shift, WHITE_8_BIT)
        else:
            levels = np.rint((band.astype(np.float64) - low) * (WHITE_8_BIT / ((high - low) or 1)))
        if tags.get(TAG_PHOTOMETRIC) == WHITE_IS_ZERO:  # which Pillow heeds up to 8 bits alone
            levels = WHITE_8_BIT - levels
        if isinstance(key, int):
            levels = np.where(band == key, WHITE_8_BIT, levels)
        grey.paste(Image.fromarray(levels.astype(np.uint8)), (0, top))
    return grey


def _bands(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, [rows, W] pixels) from top to bottom."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


def _black_and_white(image: Image.Image) -> tuple[float, float]:
    """The values of a 32-bit or float image that are shown as black and as white."""
    extremes = np.array(
        [(band.min(), band.max()) for _, band in _bands(image)], dtype=np.float64
    )  # NaN spreads to both
    whites = (1, WHITE_8_BIT, WHITE_16_BIT) if image.mode == "F" else (WHITE_8_BIT, WHITE_16_BIT)
    return shown_range(float(extremes[:, 0].min()), float(extremes[:, 1].max()), whites)


def shown_range(least: float, greatest: float, whites: tuple[int, ...]) -> tuple[float, float]:
    """The values shown as black and as white, of values from `least` to `greatest`: 0 and the first white that holds
    them all, or else those two."""
    if not (math.isfinite(least) and math.isfinite(greatest)):
        raise ValueError("holds NaN or infinite values; expected finite ones: replace them first")
    for white in whites:
        if least >= 0 and greatest <= white:
            return 0.0, float(white)
    return least, greatest


def channels_last(array: np.ndarray) -> np.ndarray:
    """[H, W], [H, W, C] or [C, H, W] -> a view [H, W, C]; `ValueError` where the shape leaves open which is meant."""
    if array.ndim == 2:
        return array[:, :, np.newaxis]
    shape = "×".join(str(side) for side in array.shape) or "a single number"
    if array.ndim == 4:
        raise ValueError(f"shape {shape} is a batch; expected one picture: pass a list of its pictures")
    if array.ndim != 3:
        raise ValueError(f"shape {shape}; expected H×W, H×W×C or C×H×W with C of 1, 3 or 4")
    first, last = array.shape[0] in CHANNEL_COUNTS, array.shape[2] in CHANNEL_COUNTS
    if first and last:
        raise ValueError(f"shape {shape} can be read as H×W×C and as C×H×W; pass a PIL image instead")
    if not first and not last:
        raise ValueError(f"shape {shape}; expected H×W, H×W×C or C×H×W with C of 1, 3 or 4")
    return array if last else np.moveaxis(array, 0, 2)


def image_from_array(pixels: np.ndarray) -> Image.Image:
    """[H, W, C] of uint8, or of floats in 0..1 -> an image of mode L, RGB or RGBA."""
    if np.issubdtype(pixels.dtype, np.floating):
        least, greatest = float(pixels.min()), float(pixels.max())
        if not (math.isfinite(least) and math.isfinite(greatest)):
            raise ValueError("holds NaN or infinite values; expected floats from 0 to 1")
        if least < -HALF_LEVEL or greatest > 1 + HALF_LEVEL:
            raise ValueError(
                f"floats from {least:.4g} to {greatest:.4g}; expected 0 to 1: "
                "undo a normalization, or divide by 255, or pass uint8"
            )
        wide = pixels.astype(np.float32, copy=False)
        pixels = np.rint(np.clip(wide, 0, 1) * WHITE_8_BIT).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ValueError(f"values of type {pixels.dtype}; expected uint8 from 0 to 255, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
