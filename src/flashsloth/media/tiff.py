"""TIFF: which reader gives the right pixels, Pillow, tifffile (an extra) or none; and tifffile's into 8 bits.

In: the bytes of a TIFF. Out: a lazy Pillow image, or a refusal that names the layout and what reads it. Pillow knows a
layout by a table of what its decoders take, and some of what is in there it decodes wrongly without a word:

    several channels of 16 bits in planes of their own       channels mixed up
    planes of anything but 8-bit RGB and CMYK                alpha and channels mixed up
    compressed big-endian float and signed integers          bytes in the wrong order
    unsigned 32-bit grey, signed 8-bit grey                  half of the levels on the wrong side
    inks other than CMYK                                     taken for CMYK
    12-bit grey with compression, or of an odd width         rows shifted
    YCbCr with fewer colours than pixels, not as JPEG        rows shifted
    palettes of 8-bit numbers in their 16-bit entries        black; read here as libtiff does

The table and these exceptions are tried against tifffile, ImageMagick and GraphicsMagick in tests/media.

What tifffile reads (grey, RGB, palettes, CMYK and CIE Lab; integers of 1 to 64 bits, floats of 16 to 64; strips, tiles,
planes; either byte order) becomes mode L, RGB, CMYK or LAB, or one of those with alpha:

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
from PIL import Image, ImageFile, ImagePalette, TiffImagePlugin

from flashsloth.media.decoders import DecodedElsewhere
from flashsloth.media.limits import MIB, PictureError, cause
from flashsloth.media.pixels import TURNS, WHITE_8_BIT, WHITE_16_BIT, shown_range

FILL_ORDER, LAST_BIT_FIRST = 266, 2
SUBFILE_KIND, REDUCED, SUB_PAGES = 254, 1, 330  # a bit of the kind: a smaller copy of another page
WIDTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 258, 259, 262
ORIENTATION, SAMPLES, PLANAR, COLOUR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 274, 277, 284, 320, 338, 339, 530
ICC_PROFILE, XMP = 34675, 700
UNCOMPRESSED, JPEG_OLD, JPEG, SEPARATE = 1, 6, 7, 2
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIE_LAB, ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
INK_SET, CMYK_INKS = 332, 1
PREMULTIPLIED, STRAIGHT = 1, 2  # values of EXTRA_SAMPLES
PLAIN_EXTRAS = ((), (0,), (STRAIGHT,))  # nothing, something, alpha that is not premultiplied
FULL_COLOURS = (1, 1)  # of SUBSAMPLING, whose default is (2, 2)
BIG_ENDIAN = b"MM"

# Of what tifffile reads: channels and names by PHOTOMETRIC, SAMPLE_FORMAT in words, compressions that stop at a bound.
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, CIE_LAB: 3, ICC_LAB: 3}
NAMES = dict(zip(COLOURS, ("grey", "grey", "RGB", "palette", "CMYK", "Lab", "Lab"), strict=True))
KINDS = {UNSIGNED: "", SIGNED: "signed ", FLOAT: "float "}
CODECS = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})  # none, LZW, deflate twice, PackBits, LZMA, ZSTD
MAX_SAMPLE_BYTES = 384 * MIB  # decoded, before they are 8 bits: the largest picture in 16-bit RGBA, and in float 33 MP
MAX_SEGMENTS = 1 << 18
MAX_CHANNELS = 16
LAB_SIGN = 0x80
BAND_SAMPLES = 1 << 22

INSTALL_TIFFFILE = "`pip install 'flashsloth[pictures]'` (tifffile) may read it, or save it as 8-bit RGB"


def open_tiff(name: str, file: Any) -> ImageFile.ImageFile:
    """The first page. Raises PictureError where only tifffile reads it and that is not installed."""
    try:
        picture = TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:  # damaged, or a layout that is not in Pillow's table
        reason = cause(error)
    else:
        if picture.tag_v2.get(SUBFILE_KIND, 0) & REDUCED and (picture.tag_v2.next or SUB_PAGES in picture.tag_v2):
            raise PictureError(
                f"{name}: its first page is a reduced copy of another, as in cameras' raw files (DNG, NEF); expected "
                f"the picture first: export it as JPEG or PNG"
            )
        if not decodes_wrongly(picture.tag_v2):
            _mend_palette(picture)
            if ORIENTATION in picture.tag_v2:  # which goes before XMP's; alone, Pillow applies that one itself
                picture.info.pop("xmp", None)
            return picture
        reason = "Pillow mixes up its channels or bytes"
    try:
        import imagecodecs  # noqa: F401  # tifffile unpacks LZW, ZSTD and odd bit depths with it, if it is there
        import tifffile  # noqa: F401
    except ImportError as error:
        raise PictureError(f"{name}: a TIFF of an unusual layout, or damaged ({reason}); {INSTALL_TIFFFILE}") from error
    file.seek(0)
    return DeepTiff(file)


def is_decoded_wrongly(image: Any) -> bool:
    """Whether `image` is one of Pillow's own whose pixels Pillow mixes up."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and decodes_wrongly(image.tag_v2)


def decodes_wrongly(tags: Any) -> bool:
    """Whether Pillow opens a picture of these tags and gives other pixels than it holds."""
    photometric, samples, bits = tags.get(PHOTOMETRIC, 0), tags.get(SAMPLES, 1), max(tags.get(BITS, (1,)))
    compression, kind = tags.get(COMPRESSION, UNCOMPRESSED), max(tags.get(SAMPLE_FORMAT, (UNSIGNED,)))
    if samples > 1 and tags.get(PLANAR) == SEPARATE:
        extra = tags.get(EXTRA_SAMPLES, ())
        known = extra in PLAIN_EXTRAS or (extra == (PREMULTIPLIED,) and compression != UNCOMPRESSED)
        return bits != 8 or photometric not in (RGB, CMYK) or not known
    if photometric == YCBCR and samples > 1 and compression not in (JPEG, JPEG_OLD):
        return tuple(tags.get(SUBSAMPLING, ())) != FULL_COLOURS
    undecoded = (photometric == PALETTE and bits < 8) or (photometric == WHITE_IS_ZERO and bits == 8)
    if undecoded and compression == UNCOMPRESSED and tags.get(FILL_ORDER) == LAST_BIT_FIRST:
        return True  # Pillow lacks the decoders that its table names
    if bits == 12:
        return compression != UNCOMPRESSED or tags[WIDTH] % 2 == 1
    if photometric == CMYK and tags.get(INK_SET, CMYK_INKS) != CMYK_INKS:
        return True
    if (bits == 32 and kind == UNSIGNED) or (bits == 8 and kind == SIGNED):
        return True
    return bits > 8 and kind != UNSIGNED and compression != UNCOMPRESSED and tags.prefix == BIG_ENDIAN


def _mend_palette(picture: Any) -> None:
    """A palette whose entries are all below 256 holds 8-bit numbers, as libtiff has it: Pillow takes them for 0."""
    entries = picture.tag_v2.get(COLOUR_MAP, ())
    if picture.mode in ("P", "PA") and entries and max(entries) <= WHITE_8_BIT:
        picture.palette = ImagePalette.raw("RGB;L", bytes(entries))


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
