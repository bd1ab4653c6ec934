"""TIFF layouts that Pillow does not know or gets wrong, read with tifffile (an extra) into 8 bits.

In: the file of a TIFF. Out: a lazy Pillow image of mode L, RGB, CMYK or LAB, or one of those with alpha. Grey, RGB,
palettes, CMYK and CIE Lab; integers of 1 to 64 bits, floats of 16 to 64; strips, tiles, planes; either byte order.

    unsigned, under 32 bits     all ones are white; over 8 bits the high byte counts
    unsigned, 32 and 64 bits    0..255 or 0..65535 where those hold every value; all ones are white where some value is
                                bright enough to be seen then; measurements in between are stretched
    float and signed            as `pixels.py` does with grey; all colours alike, alpha by itself

What a header claims is checked before anything is decoded: bytes that are not in the file, strips and tiles larger than
a picture may be, codecs that do not stop where they are told to.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from flashsloth.media.decoded import DecodedElsewhere
from flashsloth.media.limits import MIB
from flashsloth.media.pixels import TURNS, WHITE_8_BIT, WHITE_16_BIT, shown_range

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, CIE_LAB, ICC_LAB = 0, 1, 2, 3, 5, 8, 9
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, CIE_LAB: 3, ICC_LAB: 3}
NAMES = {
    WHITE_IS_ZERO: "grey",
    BLACK_IS_ZERO: "grey",
    RGB: "RGB",
    PALETTE: "palette",
    CMYK: "CMYK",
    CIE_LAB: "Lab",
    ICC_LAB: "Lab",
}
KINDS = {1: "", 2: "signed ", 3: "float "}  # SampleFormat
UNSIGNED, FLOAT = 1, 3
CODECS = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})  # none, LZW, deflate twice, PackBits, LZMA, ZSTD: all bounded
INK_SET, CMYK_INKS, ORIENTATION, ICC_PROFILE, XMP, EXTRA_SAMPLES = 332, 1, 274, 34675, 700, 338
PREMULTIPLIED, STRAIGHT = 1, 2  # values of EXTRA_SAMPLES
MAX_SAMPLE_BYTES = 384 * MIB  # decoded, before they are 8 bits: the largest picture in 16-bit RGBA, and in float 33 MP
MAX_SEGMENTS = 1 << 18
MAX_CHANNELS = 16
LAB_SIGN = 0x80
BAND_SAMPLES = 1 << 22


class DeepTiff(DecodedElsewhere):
    """The first page of a TIFF, upright."""

    format = "TIFF"

    def _open(self) -> None:
        import tifffile

        assert self.fp is not None
        self._page = page = tifffile.TiffFile(self.fp, is_lsm=False, is_scanimage=False).pages.first
        _check_layout(page)
        self._turn = TURNS.get(page.tags.valueof(ORIENTATION))
        width, height = page.imagewidth, page.imagelength
        swapped = self._turn is not None and page.tags.valueof(ORIENTATION) >= 5
        self._size, self._mode = ((height, width) if swapped else (width, height)), "RGB"
        profile, xmp = page.tags.valueof(ICC_PROFILE), page.tags.valueof(XMP)
        if isinstance(profile, bytes):
            self.info["icc_profile"] = profile
        if isinstance(xmp, bytes) and ORIENTATION not in page.tags:
            self.info["xmp"] = xmp

    def _decode(self) -> Image.Image:
        page = self._page
        _check_segments(page, self.fp)
        samples = page.asarray(maxworkers=1)
        if samples.ndim == 2:
            samples = samples[:, :, np.newaxis]
        elif page.planarconfig == 2:
            samples = np.moveaxis(samples, 0, 2)
        image = _image(page, samples)
        del samples  # before a copy is turned
        return image if self._turn is None else image.transpose(self._turn)


def _layout(page: Any) -> str:
    bits = "×".join(map(str, page.bitspersample)) if isinstance(page.bitspersample, tuple) else page.bitspersample
    planes = " in planes" if page.planarconfig == 2 and page.samplesperpixel > 1 else ""
    kind = KINDS.get(page.sampleformat, f"format-{page.sampleformat} ")
    return f"{bits}-bit {kind}{NAMES.get(page.photometric, f'photometric-{int(page.photometric)}')}{planes}"


def _check_layout(page: Any) -> None:
    """Raises ValueError for what has no right answer here."""
    unknown = f"a layout that cannot be read ({_layout(page)}"
    if page.photometric not in COLOURS or page.sampleformat not in KINDS or not isinstance(page.bitspersample, int):
        raise ValueError(f"{unknown})")
    if page.compression not in CODECS:
        raise ValueError(f"{unknown}, compression {int(page.compression)})")
    if page.photometric == CMYK and page.tags.valueof(INK_SET, CMYK_INKS) != CMYK_INKS:
        raise ValueError(f"{unknown}, inks other than CMYK)")
    if page.photometric in (PALETTE, CIE_LAB, ICC_LAB) and (page.sampleformat != UNSIGNED or page.bitspersample > 16):
        raise ValueError(f"{unknown})")
    if page.sampleformat == FLOAT and page.bitspersample == 24:  # ImageMagick writes whole numbers and calls them so
        raise ValueError(f"{unknown})")
    if page.imagedepth != 1 or page.tiledepth != 1 or page.dtype is None:
        raise ValueError(f"{unknown}, a volume or no numbers); expected one picture")
    colours, samples = COLOURS[page.photometric], page.samplesperpixel
    named = colours + len(_many(page.tags.valueof(EXTRA_SAMPLES, ())))
    if page.photometric == RGB and samples == colours + 1:  # the fourth of RGB is alpha, as Pillow has it
        named = samples
    if not colours <= samples <= MAX_CHANNELS or samples not in (colours, named):
        raise ValueError(f"{unknown}, {samples} channels of which {named} have a meaning)")


def _check_segments(page: Any, file: Any) -> None:
    """Raises ValueError where strips or tiles are not all in the file, or would unpack to too much."""
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    channels = page.samplesperpixel if page.planarconfig == 1 else 1
    segment = min(height, page.imagelength if not page.is_tiled else height) * width * channels * page.dtype.itemsize
    whole = page.imagelength * page.imagewidth * page.samplesperpixel * page.dtype.itemsize
    if max(segment, whole) > MAX_SAMPLE_BYTES:
        raise ValueError(
            f"{max(segment, whole):,} bytes when decoded; expected at most {MAX_SAMPLE_BYTES:,}: shrink it"
        )
    offsets, counts = page.dataoffsets, page.databytecounts
    expected = int(np.prod(page.chunked))
    if not len(offsets) == len(counts) == expected or expected > MAX_SEGMENTS:
        raise ValueError(f"{len(offsets)} strips or tiles; expected {expected}, at most {MAX_SEGMENTS}")
    end = file.seek(0, 2)
    if any(count <= 0 or offset <= 0 or offset + count > end for offset, count in zip(offsets, counts, strict=True)):
        raise ValueError("it is truncated: a strip or tile is not in the file")


def _image(page: Any, samples: np.ndarray) -> Image.Image:
    """[H, W, samples] of a page -> an image of 8 bits."""
    colours = COLOURS[page.photometric]
    alpha_kind, alpha = _alpha(page, samples, colours)
    pixels = samples[:, :, :colours]
    if page.photometric == PALETTE:
        pixels = _looked_up(page, pixels[:, :, 0])
    elif page.photometric in (CIE_LAB, ICC_LAB):
        pixels = _to_8_bits(pixels, page)
        if page.photometric == ICC_LAB:  # Pillow takes a and b with a sign
            pixels[:, :, 1:] ^= LAB_SIGN
    else:
        pixels = _to_8_bits(pixels, page)
    if page.photometric == WHITE_IS_ZERO:
        pixels = WHITE_8_BIT - pixels
    mode = "LAB" if page.photometric in (CIE_LAB, ICC_LAB) else {1: "L", 3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    size = pixels.shape[1], pixels.shape[0]
    if mode in ("L", "RGB"):
        image = Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels)
    else:
        image = Image.frombytes(mode, size, pixels.tobytes())
    if alpha is None:
        return image
    if mode in ("CMYK", "LAB"):
        if alpha_kind == PREMULTIPLIED:
            raise ValueError(f"premultiplied {_layout(page)} cannot be read")
        image = image.convert("RGB")
    if alpha_kind == PREMULTIPLIED:
        return Image.frombytes("RGBa", size, np.dstack([np.asarray(image.convert("RGB")), alpha]).tobytes())
    image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    return image


def _alpha(page: Any, samples: np.ndarray, colours: int) -> tuple[int, np.ndarray | None]:
    """(kind, [H, W] of 8 bits) of the first extra channel that is alpha; None where there is none."""
    extra = _many(page.tags.valueof(EXTRA_SAMPLES, ()))
    if not extra and samples.shape[2] == colours + 1:
        extra = (STRAIGHT,)
    for index, kind in enumerate(extra, start=colours):
        if kind in (PREMULTIPLIED, STRAIGHT):
            return kind, _to_8_bits(samples[:, :, index], page)
    return 0, None


def _to_8_bits(samples: np.ndarray, page: Any) -> np.ndarray:
    """Samples of any type -> uint8 of the same shape, by the module's table, some rows at a time."""
    narrow = _narrowing(samples, page)
    levels = np.empty(samples.shape, np.uint8)
    rows = max(1, BAND_SAMPLES // max(1, samples[0].size))
    for top in range(0, len(samples), rows):
        levels[top : top + rows] = narrow(samples[top : top + rows])
    return levels


def _narrowing(samples: np.ndarray, page: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What makes 0..255 of samples like these."""
    bits, whole = page.bitspersample, samples.dtype.kind in "biu"
    if page.sampleformat == UNSIGNED and bits < 32:
        if bits > 8:
            return lambda band: band >> (bits - 8)
        table = np.rint(np.arange(1 << bits) * (WHITE_8_BIT / ((1 << bits) - 1))).astype(np.uint8)
        return lambda band: table[band.astype(np.uint8)]
    least, greatest = float(samples.min()), float(samples.max())
    low, high = shown_range(least, greatest, (WHITE_8_BIT, WHITE_16_BIT) if whole else (1, WHITE_8_BIT, WHITE_16_BIT))
    if page.sampleformat == UNSIGNED and high > WHITE_16_BIT and greatest >= 1 << (bits - 8):
        return lambda band: band >> (bits - 8)
    if whole and (low, high) == (0, WHITE_16_BIT):
        return lambda band: band >> 8
    return lambda band: np.rint((band.astype(np.float64) - low) * (WHITE_8_BIT / ((high - low) or 1)))


def _looked_up(page: Any, indices: np.ndarray) -> np.ndarray:
    """[H, W] places in a palette -> [H, W, 3] of 8 bits."""
    palette = page.colormap
    if palette is None or palette.shape != (3, 1 << page.bitspersample):
        raise ValueError("its palette is missing or has a wrong length")
    eight = palette if palette.max() <= WHITE_8_BIT else palette >> 8  # as libtiff tells them apart
    return eight.astype(np.uint8).T[indices.astype(np.intp)]


def _many(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
