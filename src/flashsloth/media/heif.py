"""AVIF and HEIC: which of the two a file of the ISO container is, its colours, and its reader.

In: encoded bytes that begin with an `ftyp` box. Out: a lazy Pillow image, or why there is none. AVIF is Pillow's, HEIC
is pillow-heif's, an extra. Both hand out pictures that the container's own `irot` and `imir` have turned, or ask for
that turn in EXIF; what EXIF or XMP said besides does not count in these formats, as in browsers.

Pillow says nothing of an AVIF's `nclx`, the code points of its colours, so the boxes are walked here.
"""

import struct
from collections.abc import Iterator
from typing import Any

from PIL import AvifImagePlugin, Image, ImageFile, features

from flashsloth.media.decoders import DecodedElsewhere
from flashsloth.media.limits import PictureError

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
PLAIN_BRANDS = frozenset({b"mif1", b"msf1", b"miaf"})  # of either, told apart by the compatible brands
INSTALL_HEIC = "`pip install 'flashsloth[pictures]'` (pillow-heif) reads it, or save it as JPEG"

META_BOX, FTYP_HEAD_BYTES = b"meta", 16  # size, "ftyp", brand, version
MOST_BOXES = 4096


def container_format(data: bytes) -> str | None:
    """ "AVIF", "HEIC", or None for an ISO file that is neither, a video for example."""
    size = int.from_bytes(data[:4], "big")
    compatible = data[FTYP_HEAD_BYTES : min(size, 512)]
    brands = {data[8:12], *(compatible[at : at + 4] for at in range(0, len(compatible) - 3, 4))}
    if data[8:12] not in AVIF_BRANDS | HEIC_BRANDS | PLAIN_BRANDS:
        return None
    if data[8:12] in HEIC_BRANDS:
        return "HEIC"
    return "AVIF" if brands & AVIF_BRANDS else "HEIC"  # without a brand of its own: libheif tries what is in there


def open_avif(name: str, file: Any) -> ImageFile.ImageFile:
    """Raises PictureError where this Pillow cannot."""
    if not features.check("avif"):
        raise PictureError(f"{name}: an AVIF picture, which this Pillow was built without; save it as PNG or JPEG")
    picture = AvifImagePlugin.AvifImageFile(file)
    file.seek(0)
    _with_code_points(picture, file.read())
    return picture


def open_heic(name: str, file: Any) -> ImageFile.ImageFile:
    """Raises PictureError where pillow-heif is not installed."""
    try:
        import pillow_heif  # noqa: F401
    except ImportError as error:
        raise PictureError(f"{name}: an HEIC picture; {INSTALL_HEIC}") from error
    picture = HeicFile(file)
    file.seek(0)
    _with_code_points(picture, file.read())
    return picture


class HeicFile(DecodedElsewhere):
    """The primary picture of an HEIC file, turned as its container says, in 8 bits."""

    format = "HEIC"

    def _open(self) -> None:
        import pillow_heif

        assert self.fp is not None
        heif = pillow_heif.HeifFile(self.fp, convert_hdr_to_8bit=True)
        self._primary = heif[heif.primary_index]
        self._size, self._mode = self._primary.size, self._primary.mode
        if profile := self._primary.info.get("icc_profile"):
            self.info["icc_profile"] = profile

    def _decode(self) -> Image.Image:
        image: Image.Image = self._primary.to_pillow()
        return image


def _with_code_points(picture: Image.Image, data: bytes) -> None:
    """Puts the primary picture's `nclx` into `info["cicp"]`; an ICC profile beside it goes first (colour.py)."""
    picture.info.pop("xmp", None)  # its orientation does not count here
    points = _nclx(data)
    if points is not None:
        picture.info["cicp"] = points


def _nclx(data: bytes) -> tuple[int, int, int, int] | None:
    """(primaries, transfer, matrix, full range) of the primary picture's nclx box; None where there is none."""
    try:
        meta = next((body for kind, body in _boxes(data, 0, len(data)) if kind == META_BOX), None)
        if meta is None:
            return None
        inside = dict(_boxes(data, meta[0] + 4, meta[1]))  # 4: version and flags
        start = inside[b"pitm"][0]
        (primary,) = struct.unpack_from(">I" if data[start] else ">H", data, start + 4)
        properties = dict(_boxes(data, *inside[b"iprp"]))
        kinds = list(_boxes(data, *properties[b"ipco"]))
        for index in _associated(data, properties[b"ipma"][0], primary):
            kind, (begin, end) = kinds[index - 1] if 0 < index <= len(kinds) else (b"", (0, 0))
            if kind == b"colr" and data[begin : begin + 4] == b"nclx" and end - begin >= 11:
                primaries, transfer, matrix, full_range = struct.unpack_from(">HHHB", data, begin + 4)
                return primaries, transfer, matrix, full_range >> 7
    except (struct.error, KeyError, IndexError):  # a damaged box: as good as none
        return None
    return None


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """(kind, (start, end) of its body) of the boxes between two places."""
    for _ in range(MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        stop = end if size == 0 else start + size
        if stop > end or stop < start + head:
            return
        yield kind, (start + head, stop)
        start = stop


def _associated(data: bytes, at: int, item: int) -> list[int]:
    """The numbers, from 1, of the properties of `item` in an ipma box."""
    version, wide = data[at], data[at + 3] & 1
    (entries,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(min(entries, MOST_BOXES)):
        (number,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        count = data[at]
        codes = struct.unpack_from(f">{count}{'H' if wide else 'B'}", data, at + 1)
        if number == item:
            return [code & (0x7FFF if wide else 0x7F) for code in codes]
        at += 1 + count * (2 if wide else 1)
    return []
