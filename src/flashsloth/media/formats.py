"""Encoded bytes, untrusted, become a Pillow image of which the header alone has been read.

In: the bytes of a file. Out: a Pillow image with its size and mode, still to be loaded. The format goes by content,
never by name: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, HEIC; of several frames, the first.

The plugins are called themselves, not through `Image.open`: that one answers "cannot identify" to whatever went wrong,
and warns or refuses by `Image.MAX_IMAGE_PIXELS`, a setting of the whole process that is not ours to change.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin
from PIL import WebPImagePlugin as WebpImagePlugin

from flashsloth.media.heif import container_format, open_avif, open_heic
from flashsloth.media.limits import PictureError, refusing
from flashsloth.media.other_kinds import other_kind
from flashsloth.media.pixels import key_in_8_bits
from flashsloth.media.quiet import quiet_decoders
from flashsloth.media.tiff import open_tiff

FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebpImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
OPENERS: dict[str, Callable[[str, io.BytesIO], ImageFile.ImageFile]] = {
    "TIFF": open_tiff,
    "AVIF": open_avif,
    "HEIC": open_heic,
}
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",  # BigTIFF
    b"MM\x00+": "TIFF",
}

PNG_DEPTH_OFFSET = 24  # bytes: signature (8), chunk head (8), width (4), height (4)
PNG_FIRST_CHUNK, PNG_CHUNK_HEAD, PNG_CRC_BYTES, CICP_BYTES = 8, 8, 4, 4
MOST_PNG_CHUNKS = 1000  # before the pixels
BMP_HEADER, BMP_BITS, BMP_ALPHA_MASK = 14, 28, slice(66, 70)  # bytes; the header's first field is its length:
BMP_V3, BMP_V5 = 56, 124  # with the alpha's mask; with a profile
BMP_COLOUR_SPACE, BMP_EMBEDDED, BMP_PROFILE = slice(70, 74), b"DEBM", 126
MAX_JPEG_SCANS = 100  # progressive files have about ten; a few bytes buy one more, and each is a pass over every pixel
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # no stuffed byte, restart or fill byte
JPEG_TEM, JPEG_SOI, JPEG_EOI, JPEG_SOS = 0x01, 0xD8, 0xD9, 0xDA
JPEG_BARE_MARKERS = frozenset({JPEG_TEM, JPEG_SOI})  # markers that no segment length follows


class WholeFile(io.BytesIO):
    """Bytes that raise where a decoder asks for more than there are.

    So a truncated file is an error even where someone has set `ImageFile.LOAD_TRUNCATED_IMAGES`, which turns what is
    missing into grey.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and size is not None and size > 0:
            raise EOFError("the file is truncated: it ends before the picture does")
        return data


def parse(name: str, data: bytes) -> ImageFile.ImageFile:
    """A lazy Pillow image of encoded bytes; `name` is for error messages."""
    kind = _format(data)
    if kind is None:
        raise PictureError(f"{name}: {other_kind(data)}; expected {FORMATS}; save a picture as one of these")
    if kind == "JPEG" and _jpeg_scans(data) > MAX_JPEG_SCANS:
        raise PictureError(f"{name}: a JPEG of more than {MAX_JPEG_SCANS} scans; expected a picture: re-save it")
    with decoding(name, kind):
        file = WholeFile(data)
        picture = PLUGINS[kind](file) if kind in PLUGINS else OPENERS[kind](name, file)
    if kind == "GIF":
        _note_drawn_part(picture)
    if kind == "PNG":
        _read_png_colours(picture, data)
    if kind == "BMP":
        _read_bmp_extras(name, picture, data)
    if kind == "PNG" and picture.mode != "P" and "transparency" in picture.info:
        picture.info["transparency"] = key_in_8_bits(picture.info["transparency"], data[PNG_DEPTH_OFFSET])
    return picture


@contextmanager
def decoding(name: str, kind: str) -> Iterator[None]:
    """A context for the decoders alone, which on damaged bytes raise more types than can be listed; and talk."""
    advice = "save it again as 8-bit RGB, or fetch it again"
    with refusing(f"{name}: a damaged or unusual {kind}", Exception, advice=advice), quiet_decoders():
        yield


def _format(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":  # the first box of an ISO container
        return container_format(data)
    return next((kind for signature, kind in SIGNATURES.items() if data.startswith(signature)), None)


def _read_png_colours(picture: ImageFile.ImageFile, data: bytes) -> None:
    """Puts a cICP chunk's code points into `info["cicp"]`, which Pillow does not; they go before a profile."""
    position = PNG_FIRST_CHUNK
    for _ in range(MOST_PNG_CHUNKS):
        head = data[position : position + PNG_CHUNK_HEAD]
        if len(head) < PNG_CHUNK_HEAD or head[4:] == b"IDAT":
            return
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] == b"cICP" and length == CICP_BYTES:
            picture.info.pop("icc_profile", None)
            picture.info["cicp"] = tuple(data[position + PNG_CHUNK_HEAD : position + PNG_CHUNK_HEAD + CICP_BYTES])
            return
        position += PNG_CHUNK_HEAD + length + PNG_CRC_BYTES


def _note_drawn_part(picture: ImageFile.ImageFile) -> None:
    """Puts the box of a first frame that leaves some of a GIF's canvas out into `info["drawn"]`: outside it nothing is
    drawn, which Pillow shows as the palette's first colour."""
    box = picture.tile[0].extents if picture.tile else None
    if box is not None and box != (0, 0, *picture.size):
        picture.info["drawn"] = box


def _read_bmp_extras(name: str, picture: ImageFile.ImageFile, data: bytes) -> None:
    """Puts an embedded profile where Pillow's other formats have it; refuses 16-bit alpha, which Pillow leaves out."""
    (header,) = struct.unpack_from("<I", data, BMP_HEADER)
    if header >= BMP_V3 and struct.unpack_from("<H", data, BMP_BITS)[0] == 16 and any(data[BMP_ALPHA_MASK]):
        raise PictureError(f"{name}: a BMP with alpha in 16 bits, which cannot be read; save it as PNG")
    if header >= BMP_V5 and data[BMP_COLOUR_SPACE] == BMP_EMBEDDED:
        offset, length = struct.unpack_from("<II", data, BMP_PROFILE)
        picture.info["icc_profile"] = data[BMP_HEADER + offset : BMP_HEADER + offset + length]


def _jpeg_scans(data: bytes) -> int:
    """Scans of a JPEG up to its end, or one more than the limit where there are more."""
    scans, position = 0, 0
    while scans <= MAX_JPEG_SCANS and (marker := JPEG_MARKER.search(data, position)):
        code, position = data[marker.end() - 1], marker.end()
        if code == JPEG_EOI:
            break
        scans += code == JPEG_SOS
        if code not in JPEG_BARE_MARKERS:
            position += int.from_bytes(data[position : position + 2], "big")
    return scans
