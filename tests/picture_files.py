"""Pictures as bytes, made here: by Pillow where it can write them, by hand where it cannot."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_GREY, PNG_RGB, PNG_PALETTE = 0, 2, 3
SHORT, LONG = 3, 4  # TIFF types
MOST_FLIPS = 12
HEADER_BYTES = 64  # where a flip does the most

# The four corners differ, so that no two orientations look alike.
RED, GREEN, BLUE, GREY = (200, 30, 60), (20, 180, 40), (10, 20, 220), (120, 120, 120)


def corners() -> Image.Image:
    """24 wide, 16 high: a colour for each quarter. Sides are whole JPEG blocks, so every format keeps the colours."""
    quarters = np.array([[RED, GREEN], [BLUE, GREY]], dtype=np.uint8)
    return Image.fromarray(quarters.repeat(8, axis=0).repeat(12, axis=1))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


def packed_zeros(mebibytes: int) -> bytes:
    """What zlib unpacks to so many MiB of zeros, put together from one MiB that was packed."""
    packer = zlib.compressobj(9)
    head = packer.compress(bytes(2)) + packer.flush(zlib.Z_FULL_FLUSH)  # from here on a block stands for itself
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes((1 << 20) - 2)) + packer.flush(zlib.Z_FINISH)
    adler = ((mebibytes << 20) % 65521) << 16 | 1
    return head + (mebibytes - 1) * block + rest[:-4] + struct.pack(">I", adler)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of raw `rows`, each of which begins with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(png_chunk(kind, body) for kind, body in parts)


def grey_tiff(width: int, height: int, bits: int, data: bytes, photometric: int = 1, sample_format: int = 1) -> bytes:
    """An uncompressed little-endian grey TIFF of one strip."""
    entries = [
        (256, LONG, width),
        (257, LONG, height),
        (258, SHORT, bits),
        (259, SHORT, 1),
        (262, SHORT, photometric),
        (273, LONG, 0),
        (277, SHORT, 1),
        (278, LONG, height),
        (279, LONG, len(data)),
        (339, SHORT, sample_format),
    ]
    start = 8 + 2 + 12 * len(entries) + 4
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, start if tag == 273 else v) for tag, kind, v in entries)
    return b"II*\x00" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0) + data


def bomb(kind: str) -> bytes:
    """A small file of 400 megapixels, all there."""
    side = 20_000
    if kind == "PNG":
        return png(side, side, 1, PNG_GREY, bytes((1 + side // 8) * side))
    small = encoded(Image.new("RGB", (16, 16)), kind)
    if kind == "GIF":
        return small.replace(struct.pack("<HH", 16, 16), struct.pack("<HH", side, side))
    if kind == "JPEG":
        return small.replace(struct.pack(">HH", 16, 16), struct.pack(">HH", side, side), 1)
    return small.replace(struct.pack("<II", 16, 16), struct.pack("<II", side, side))  # BMP


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` with some bytes replaced, half of the time near its beginning, and now and then cut off or repeated."""
    bytes_ = bytearray(data)
    for _ in range(chance.randint(1, MOST_FLIPS)):
        end = len(bytes_) if chance.random() < 0.5 else min(HEADER_BYTES, len(bytes_))
        bytes_[chance.randrange(end)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    fate = chance.random()
    if fate < 0.2:
        del bytes_[chance.randrange(len(bytes_)) :]
    elif fate < 0.3:
        start = chance.randrange(len(bytes_))
        bytes_[start:start] = bytes_[start : start + chance.randrange(40)]
    return bytes(bytes_)
