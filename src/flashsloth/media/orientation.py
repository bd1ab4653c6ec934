"""Which way up a picture is meant to be seen, from whatever metadata says so.

In: the `info` of a Pillow image. Out: an EXIF orientation, 1..8, or the turn that undoes it. The first of these that
names one counts, and it is applied once:

    EXIF                    as the format carries it, or as hexadecimal digits in a PNG text ("Raw profile type exif",
                            "Raw profile type APP1", which ImageMagick and exiftool write)
    XMP                     tiff:Orientation, as an attribute or an element

What is absent, damaged or not between 1 and 8 is as good as upright. Of TIFF, AVIF and HEIC the orientation is part of
the format: their readers hand out pictures that are upright already, or ask for the turn in EXIF.
"""

import re
import struct
from typing import Any

from PIL import Image

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
