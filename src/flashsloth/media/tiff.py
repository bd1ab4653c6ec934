"""Which reader gives the right pixels of a TIFF: Pillow, tifffile (an extra), or none.

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
"""

from typing import Any

from PIL import ImageFile, ImagePalette, TiffImagePlugin

from flashsloth.media.limits import PictureError, cause

FILL_ORDER, LAST_BIT_FIRST = 266, 2
SUBFILE_KIND, REDUCED, SUB_PAGES = 254, 1, 330  # a bit of the kind: a smaller copy of another page
WIDTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 258, 259, 262
ORIENTATION, SAMPLES, PLANAR, COLOUR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 274, 277, 284, 320, 338, 339, 530
UNCOMPRESSED, JPEG_OLD, JPEG, SEPARATE = 1, 6, 7, 2
WHITE_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 2, 3, 5, 6
UNSIGNED, SIGNED = 1, 2
INK_SET, CMYK_INKS = 332, 1
PREMULTIPLIED = (1,)  # value of EXTRA_SAMPLES
PLAIN_EXTRAS = ((), (0,), (2,))  # nothing, something, alpha that is not premultiplied
FULL_COLOURS = (1, 1)  # of SUBSAMPLING, whose default is (2, 2)
BIG_ENDIAN = b"MM"
PALETTE_MAX = 255

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
    from flashsloth.media.deep_tiff import DeepTiff

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
        known = extra in PLAIN_EXTRAS or (extra == PREMULTIPLIED and compression != UNCOMPRESSED)
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
    if picture.mode in ("P", "PA") and entries and max(entries) <= PALETTE_MAX:
        picture.palette = ImagePalette.raw("RGB;L", bytes(entries))
