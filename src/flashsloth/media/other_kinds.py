"""What a file is that is no picture of ours, in words, so that a refusal names it.

In: the first bytes of a file whose format `formats.py` does not read. Out: a few words. Nothing is decoded.
"""

from flashsloth.lfs_pointer import LFS_POINTER
from flashsloth.lfs_pointer import SIGNATURE as LFS_SIGNATURE
from flashsloth.media.limits import shown

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


__all__ = ["other_kind"]
