"""Encoded bytes, untrusted, become a Pillow image of which the header alone has been read.

In: the bytes of a file. Out: a Pillow image with its size and mode, still to be loaded. The format goes by content,
never by name: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, HEIC; of several frames, the first. What a file is instead is
named in the refusal, by its first bytes.

The plugins are called themselves, not through `Image.open`: that one answers "cannot identify" to whatever went wrong,
and warns or refuses by `Image.MAX_IMAGE_PIXELS`, a setting of the whole process that is not ours to change.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin
from PIL import WebPImagePlugin as WebpImagePlugin

from flashsloth.files import LFS_POINTER
from flashsloth.files import SIGNATURE as LFS_SIGNATURE
from flashsloth.media.decoders import quiet_decoders
from flashsloth.media.heif import container_format, open_avif, open_heic
from flashsloth.media.limits import PictureError, refusing, shown
from flashsloth.media.pixels import key_in_8_bits
from flashsloth.media.tiff import open_tiff

SAMPLE_BYTES = 512  # enough of a file to tell
SHOWN_BYTES = 24
SHOWN_UNKNOWN_BYTES = 8

RAW = "a camera's raw picture"
PNM = "a PNM picture (PBM, PGM or PPM)"
BEGINNINGS = {  # in either case
    LFS_SIGNATURE: LFS_POINTER,
    b"%pdf": "a PDF",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML or SVG document",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"pk\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"bzh": "a bzip2 archive",
    b"\xfd7zxz\x00": "an xz archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\x93numpy": "a NumPy array file; pass the array that numpy.load gives",
    b"\x89hdf\r\n": "an HDF5 file",
    b"par1": "a Parquet table",
    b"ivborw0kggo": "a PNG in base64; put data:image/png;base64, before it",
    b"/9j/": "a JPEG in base64; put data:image/jpeg;base64, before it",
    b"data:image/": "a data URL; pass it as a string",
    b"\xff\x0a": "a JPEG XL picture",
    b"\x00\x00\x00\x0cjxl ": "a JPEG XL picture",
    b"\x00\x00\x00\x0cjp  ": "a JPEG 2000 picture",
    b"\xff\x4f\xff\x51": "a JPEG 2000 picture",
    b"ii\xbc\x01": "a JPEG XR picture",
    b"bpg\xfb": "a BPG picture",
    b"flif": "a FLIF picture",
    b"8bps": "a Photoshop document",
    b"gimp xcf": "a GIMP document",
    b"\x00\x00\x01\x00": "an icon (ICO)",
    b"\x00\x00\x02\x00\x01\x00": "a cursor (CUR)",
    b"icns": "an icon (ICNS)",
    b"dds ": "a DDS texture",
    b"qoif": "a QOI picture",
    b"\x01\xda": "an SGI picture",
    b"\x59\xa6\x6a\x95": "a Sun raster picture",
    b"v/1\x01": "an OpenEXR picture",
    b"#?radiance": "a Radiance HDR picture",
    b"#?rgbe": "a Radiance HDR picture",
    b"sdpx": "a DPX picture",
    b"xpds": "a DPX picture",
    b"\x80\x2a\x5f\xd7": "a Cineon picture",
    b"simple  =": "a FITS picture",
    b"/* xpm */": "an XPM picture",
    b"#define ": "an XBM picture, or a source file in C",
    b"\x8amng\r\n": "an MNG animation",
    b"\x8bjng\r\n": "a JNG picture",
    b"\xd7\xcd\xc6\x9a": "a WMF drawing",
    b"\xc5\xd0\xd3\xc6": "a PostScript document",
    b"%!ps": "a PostScript document",
    b"at&tform": "a DjVu document",
    b"\x1ae\xdf\xa3": "a WebM or Matroska video",
    b"fujifilmccd-raw": RAW,
    b"iiro": RAW,
    b"iirs": RAW,
    b"iiu\x00": RAW,
    **{b"p%d" % kind + space: PNM for kind in range(1, 8) for space in (b"\n", b" ", b"\t", b"\r", b"#")},
    **dict.fromkeys((b"pf\n", b"pf4\n"), "a PFM picture"),
}
RIFF_KINDS = {b"AVI ": "an AVI video", b"WAVE": "a sound (WAV)"}
RAW_BRANDS = (b"crx ",)
DICOM, EMF = (128, b"DICM"), (40, b" EMF")  # where their marks stand
TGA_FOOTER = b"TRUEVISION-XFILE."
TGA_FOOTER_BYTES = 26
TGA_HEADER_BYTES = 18
TGA_KINDS, TGA_DEPTHS = (1, 2, 3, 9, 10, 11), (8, 15, 16, 24, 32)
PCX_MARK, PCX_VERSIONS, PCX_DEPTHS = 0x0A, (0, 2, 3, 4, 5), (1, 2, 4, 8)
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


def other_kind(data: bytes) -> str:
    """What bytes are that are no picture of ours."""
    if not data:
        return "empty, 0 bytes"
    sample = data[:SAMPLE_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, kind in BEGINNINGS.items():
        if sample.startswith(beginning.lower()):
            return kind
    if data[4:8] == b"ftyp":
        if data[8:12] in RAW_BRANDS:
            return RAW
        return f"a video or another ISO media file (brand {shown(data[8:12].decode('latin-1'))})"
    if data[:4] == b"RIFF":
        return RIFF_KINDS.get(data[8:12], "a RIFF file that is no WebP")
    for kind, (place, mark) in {"a DICOM picture": DICOM, "an EMF drawing": EMF}.items():
        if data[place : place + len(mark)] == mark:
            return kind
    text = data[:SAMPLE_BYTES].decode("utf-8", errors="ignore")
    if text and all(c.isprintable() or c.isspace() for c in text):
        return f"text, which begins {shown(text[:SHOWN_BYTES])}, not a picture"
    if _is_tga(data):
        return "a TGA (Targa) picture"
    if data[0] == PCX_MARK and data[1:2] and data[1] in PCX_VERSIONS and data[2:4] and data[3] in PCX_DEPTHS:
        return "a PCX picture"
    return f"an unknown kind of file, which begins with the bytes {data[:SHOWN_UNKNOWN_BYTES].hex(' ')}"


def _is_tga(data: bytes) -> bool:
    """By its footer, or, since older files have none, by a header that makes sense."""
    if TGA_FOOTER in data[-TGA_FOOTER_BYTES:]:
        return True
    if len(data) <= TGA_HEADER_BYTES:
        return False
    size, depth = data[12:16], data[16]
    return data[1] <= 1 and data[2] in TGA_KINDS and depth in TGA_DEPTHS and any(size[:2]) and any(size[2:])


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
        # A first frame may leave some of the canvas out, which Pillow shows as the palette's first colour.
        box = picture.tile[0].extents if picture.tile else None
        if box is not None and box != (0, 0, *picture.size):
            picture.info["drawn"] = box
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
