"""Encoded bytes, untrusted, become a Pillow image of which the header alone has been read.

In: the bytes of a file. Out: a Pillow image with its size and mode, still to be loaded. The format goes by content,
never by name: PNG, JPEG, WebP, GIF, BMP, TIFF; of several frames, the first.

The plugins are called themselves, not through `Image.open`: that one answers "cannot identify" to whatever went wrong,
and warns or refuses by `Image.MAX_IMAGE_PIXELS`, a setting of the whole process that is not ours to change.
"""

import io
import re
from contextlib import AbstractContextManager

from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL import WebPImagePlugin as WebpImagePlugin

from flashsloth.lfs_pointer import LFS_POINTER
from flashsloth.lfs_pointer import SIGNATURE as LFS_SIGNATURE
from flashsloth.media.limits import PictureError, refusing, shown
from flashsloth.media.pixels import key_in_8_bits

FORMATS = "PNG, JPEG, WebP, GIF, BMP or TIFF"
PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebpImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
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
OTHER_KINDS = {  # in lower case
    LFS_SIGNATURE: LFS_POINTER,
    b"%pdf": "a PDF",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML or SVG document",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"pk\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\x0a": "a JPEG XL picture",
    b"\x00\x00\x00\x0cjxl ": "a JPEG XL picture",
    b"\x00\x00\x00\x0cjp  ": "a JPEG 2000 picture",
}
SAMPLE_BYTES = 512  # enough of a file to tell what it is instead
SHOWN_BYTES = 24

PNG_DEPTH_OFFSET = 24  # bytes: signature (8), chunk head (8), width (4), height (4)
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
        raise PictureError(f"{name}: {_other_kind(data)}; expected {FORMATS}")
    if kind == "JPEG" and _jpeg_scans(data) > MAX_JPEG_SCANS:
        raise PictureError(f"{name}: a JPEG of more than {MAX_JPEG_SCANS} scans; expected a picture: re-save it")
    with decoding(name, kind):
        picture = PLUGINS[kind](WholeFile(data))
    if kind == "PNG" and picture.mode != "P" and "transparency" in picture.info:
        picture.info["transparency"] = key_in_8_bits(picture.info["transparency"], data[PNG_DEPTH_OFFSET])
    return picture


def decoding(name: str, kind: str) -> AbstractContextManager[None]:
    """A context for Pillow's decoders alone, which on damaged bytes raise more types than can be listed."""
    return refusing(f"{name}: a damaged or unusual {kind}", Exception, advice="fetch or save the file anew")


def _format(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for signature, kind in SIGNATURES.items() if data.startswith(signature)), None)


def _other_kind(data: bytes) -> str:
    """What bytes are that are no picture of ours, in words."""
    if not data:
        return "empty, 0 bytes"
    sample = data[:SAMPLE_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, kind in OTHER_KINDS.items():
        if sample.lower().startswith(signature):
            return kind
    if data[4:8] == b"ftyp":  # the ISO container's first box
        return f"an HEIC, AVIF or video file (brand {shown(data[8:12].decode('latin-1'))})"
    text = data[:SAMPLE_BYTES].decode("utf-8", errors="ignore")
    if text and all(c.isprintable() or c.isspace() for c in text):
        return f"text, which begins {shown(text[:SHOWN_BYTES])}, not a picture"
    return f"an unknown kind of file, which begins with the bytes {data[:8].hex(' ')}"


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
