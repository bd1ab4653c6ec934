"""Every layout of a TIFF gives the pixels that another program wrote into it, or is refused; none gives others.

tifffile writes them here; ImageMagick and GraphicsMagick do in test_other_programs.py.
"""

import io
import itertools
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import encoded, exif_with_orientation, packed_zeros
from PIL import Image
from test_formats import peak_growth_of_opening

from flashsloth.media import PictureError, open_picture
from flashsloth.media.limits import MIB

tifffile = pytest.importorskip("tifffile", reason="tifffile (flashsloth[pictures]) is not installed")
pytest.importorskip("imagecodecs", reason="imagecodecs (flashsloth[pictures]) is not installed")

HEIGHT, WIDTH = 23, 37  # neither a whole number of tiles nor of bytes
DOWN, ACROSS = np.mgrid[0:HEIGHT, 0:WIDTH]
CIRCLE = (ACROSS - 18) ** 2 + (DOWN - 11) ** 2 < 64
COLOURS = np.dstack([ACROSS / (WIDTH - 1), DOWN / (HEIGHT - 1), 0.1 + 0.8 * CIRCLE])  # [H, W, 3] of 0..1
INKS = np.dstack([1 - COLOURS, np.zeros((HEIGHT, WIDTH))])
ALPHA = np.clip(1.1 * DOWN / (HEIGHT - 1), 0, 1)
ROWS_OF_A_STRIP, TILE = 5, (16, 32)
WITHIN = 2  # levels of 255: 8 bits rounded twice


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    """A TIFF of [H, W] or [H, W, samples]; of planes, with planarconfig="separate"."""
    file = io.BytesIO()
    if options.get("planarconfig") == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    if "tile" not in options:
        options.setdefault("rowsperstrip", ROWS_OF_A_STRIP)
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def whole(values: np.ndarray, bits: int) -> np.ndarray:
    """0..1 -> 0..all ones, in the smallest type that holds them."""
    kind = next(f"u{size}" for size in (1, 2, 4, 8) if bits <= 8 * size)
    most = float((1 << bits) - 1) if bits < 54 else float((1 << bits) - (1 << bits - 53))  # that float64 can hold
    return np.round(values * most).astype(kind)


def off(data: bytes, expected: np.ndarray) -> int:
    """By how many levels the worst pixel differs from `expected`, [H, W, 3] of 0..1."""
    found = np.asarray(open_picture(data)).astype(float)
    assert found.shape == expected.shape
    return int(np.abs(found - expected * 255).max().round())


def on_white(colours: np.ndarray) -> np.ndarray:
    return colours * ALPHA[:, :, None] + 1 - ALPHA[:, :, None]


STORAGE = [
    dict(zip(("byteorder", "compression", "predictor"), each, strict=True))
    for each in itertools.product("<>", (None, "lzw", "zlib"), (False, True))
    if each[1] or not each[2]
]


@pytest.mark.parametrize("tiled", [False, True], ids=["strips", "tiles"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("bits", [8, 16, 32, 64, "f2", "f4", "f8"])
def test_rgb_grey_and_cmyk_of_every_depth(bits: Any, planes: str, tiled: bool) -> None:
    def stored(values: np.ndarray) -> np.ndarray:
        return whole(values, bits) if isinstance(bits, int) else values.astype(bits)

    for storage in STORAGE:
        if storage["predictor"] and bits == 64:  # which tifffile does not write
            continue
        options = storage | ({"tile": TILE} if tiled else {}) | {"planarconfig": planes}
        assert off(tiff(stored(COLOURS), photometric="rgb", **options), COLOURS) <= WITHIN, options
        assert off(tiff(stored(INKS), photometric="separated", **options), COLOURS) <= WITHIN, options
        for photometric in ("minisblack", "miniswhite"):
            grey = COLOURS[:, :, 0] if photometric == "minisblack" else 1 - COLOURS[:, :, 0]
            data = tiff(stored(grey), photometric=photometric, **(options | {"planarconfig": None}))
            assert off(data, COLOURS[:, :, :1].repeat(3, axis=2)) <= WITHIN, (photometric, options)


@pytest.mark.parametrize("more", [[], ["unspecified"]], ids=["alpha", "alpha and another"])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("bits", [8, 16, "f4"])
def test_extra_channels(bits: Any, planes: str, kind: str, more: list[str]) -> None:
    for storage, colours in itertools.product(STORAGE, (COLOURS, COLOURS[:, :, :1])):
        seen = colours if kind == "unspecified" else on_white(colours)
        stored = np.dstack(
            [colours * ALPHA[:, :, None] if kind == "assocalpha" else colours, ALPHA, *[ALPHA] * len(more)]
        )
        data = tiff(
            whole(stored, bits) if isinstance(bits, int) else stored.astype(bits),
            photometric="rgb" if colours is COLOURS else "minisblack",
            extrasamples=[kind, *more],
            planarconfig=planes,
            **storage,
        )
        assert off(data, np.broadcast_to(seen, COLOURS.shape)) <= WITHIN, storage


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 14, 24])
@pytest.mark.parametrize("channels", [1, 3])
def test_bits_that_are_no_whole_bytes(channels: int, bits: int) -> None:
    colours = COLOURS[:, :, :channels]
    stored = whole(colours, bits)
    shown = np.broadcast_to(stored / ((1 << bits) - 1), COLOURS.shape)  # what is left of it in so few bits
    data = tiff(
        stored if channels == 3 else stored[:, :, 0],
        photometric="rgb" if channels == 3 else "minisblack",
        bitspersample=bits,
    )
    assert off(data, shown) <= 1


@pytest.mark.parametrize("eight", [False, True], ids=["16-bit entries", "8-bit entries"])
@pytest.mark.parametrize("bits", [8, 16])
def test_palettes(bits: int, eight: bool) -> None:
    size = 1 << bits
    palette = np.random.default_rng(0).integers(0, 256, (3, size)).astype(np.uint16)
    indices = (ACROSS * 5 + DOWN) % size
    stored = palette if eight else palette * 257
    data = tiff(indices.astype(whole(ALPHA, bits).dtype), photometric="palette", colormap=stored)
    assert off(data, palette.T[indices] / 255) == 0


@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
@pytest.mark.parametrize("bits", [8, 16])
def test_lab(bits: int, photometric: str) -> None:
    """Greys, which no choice of white moves, and two colours on the right side."""
    levels, signs = np.array([0, 25, 50, 75, 100]), np.array([0, 0, 0, 0, 0])
    values = np.stack([np.append(levels, [50, 50]), np.append(signs, [60, 0]), np.append(signs, [0, -60])])
    full = np.rint(values * np.array([[2.55], [1], [1]])).astype(int)
    full[1:] = full[1:] + 128 if photometric == "icclab" else full[1:] % 256
    stored = (full if bits == 8 else full * 256).astype(f"u{bits // 8}").T[np.newaxis]
    found = np.asarray(open_picture(tiff(stored, photometric=photometric)))[0].astype(int)
    assert np.abs(found[:5] - np.array([[0], [59], [119], [185], [255]])).max() <= 3
    assert found[5].argmax() == 0  # red
    assert found[6].argmax() == 2  # blue


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 255], [0, 1, 255]),
        ([0, 511, 65535], [0, 1, 255]),
        ([0, 1 << 31, (1 << 32) - 1], [0, 128, 255]),  # not taken for a negative number
        ([0, 1 << 22, 1 << 23], [0, 128, 255]),  # a measurement: at full scale it would all be black
    ],
)
def test_unsigned_32_bits_by_their_range(values: list[int], expected: list[int]) -> None:
    grey = tiff(np.array([values], np.uint32), photometric="minisblack")
    assert np.asarray(open_picture(grey))[0, :, 1].tolist() == expected
    colour = tiff(np.array([values], np.uint32)[:, :, None].repeat(3, axis=2), photometric="rgb")
    assert np.asarray(open_picture(colour))[0, :, 1].tolist() == expected


def test_signed_numbers() -> None:
    values = np.array([[-100, 0, 100]])
    for kind, channels in itertools.product(("i1", "i2", "i4"), (1, 3)):
        stored = values.astype(kind) if channels == 1 else values.astype(kind)[:, :, None].repeat(3, axis=2)
        for order in "<>":
            data = tiff(
                stored, photometric="rgb" if channels == 3 else "minisblack", byteorder=order, compression="zlib"
            )
            found = np.asarray(open_picture(data))[0, :, 0].tolist()
            assert found in ([0, 127, 255], [0, 128, 255]), (kind, order)


def test_the_example_of_planes_in_16_bits() -> None:
    """Which Pillow decodes to noise, in silence; official, too, gives the picture."""
    for policy in ("careful", "official"):
        data = tiff(whole(COLOURS, 16), photometric="rgb", planarconfig="separate")
        found = np.asarray(open_picture(data, image_policy=policy)).astype(float)
        assert np.abs(found - COLOURS * 255).max() <= WITHIN


def test_an_image_that_pillow_opened_wrongly_is_refused() -> None:
    data = tiff(whole(COLOURS, 16), photometric="rgb", planarconfig="separate")
    with Image.open(io.BytesIO(data)) as image, pytest.raises(PictureError, match="pass the file's path or bytes"):
        open_picture(image)
    with Image.open(io.BytesIO(tiff(whole(COLOURS, 16), photometric="rgb"))) as image:
        assert open_picture(image).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_profile_and_big_tiff(orientation: int) -> None:
    data = tiff(
        whole(COLOURS, 16), photometric="rgb", planarconfig="separate", bigtiff=True,
        extratags=[(274, "H", 1, orientation, True)],
    )  # fmt: skip
    turned = np.rot90(COLOURS, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert off(data, turned) <= WITHIN
    small = encoded(Image.fromarray(whole(COLOURS, 8)), "TIFF", exif=exif_with_orientation(orientation))
    assert off(small, turned) <= WITHIN


@pytest.mark.parametrize("layout", ["10-bit RGB", "planes of 16-bit RGB"])
def test_without_tifffile_the_error_says_what_to_install(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    options = {"bitspersample": 10} if layout.startswith("10") else {"planarconfig": "separate"}
    data = tiff(whole(COLOURS, 10 if layout.startswith("10") else 16), photometric="rgb", **options)
    with pytest.raises(PictureError, match=r"pip install 'flashsloth\[pictures\]'"):
        open_picture(data)
    assert off(tiff(whole(COLOURS, 8), photometric="rgb"), COLOURS) <= WITHIN  # Pillow's own


def uncompressed(tags: dict[int, int], body: bytes) -> bytes:
    """A little-endian TIFF of one strip with these LONG tags."""
    tags = tags | {273: 8 + 2 + 12 * (len(tags) + 2) + 4, 279: len(body)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + body


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({262: 6, 277: 3}, "YCbCr with half the colours, not as JPEG"),
        ({262: 32803, 277: 1}, "a colour filter array"),
        ({262: 5, 277: 4, 332: 2}, "inks other than CMYK"),
        ({262: 2, 277: 3, 339: 4}, "numbers of no kind"),
        ({262: 2, 277: 3, 339: 3, 258: 24}, "24-bit float"),
        ({262: 1, 277: 2, 258: 16}, "a channel without a meaning"),
        ({262: 2, 277: 3, 258: 16, 259: 34712}, "JPEG 2000 inside"),
        ({262: 2, 277: 3, 258: 10, 259: 7}, "JPEG of 10 bits inside"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_right_answer_is_refused(tags: dict[int, int], why: str) -> None:
    data = uncompressed({256: 8, 257: 8, 258: 8, 259: 1, 278: 8, **tags}, bytes(2048))
    with pytest.raises(PictureError, match=r"cannot be read|have a meaning") as caught:
        open_picture(data)
    assert str(caught.value).isprintable(), why


DEEP = {256: 64, 257: 64, 258: 10, 259: 1, 262: 2, 277: 3, 278: 64}


@pytest.mark.parametrize(
    ("tags", "body"),
    [
        (DEEP, bytes(100)),  # too short by far
        (DEEP | {259: 8}, zlib.compress(bytes(100))),
        (DEEP | {259: 8}, packed_zeros(512)),  # a bomb in 64×64 pixels
        (DEEP | {259: 5}, bytes(100)),
        (DEEP | {256: 8000, 257: 6000, 258: 64, 278: 6000}, bytes(100)),  # 1.1 GB when decoded
        (DEEP | {278: 2**32 - 1}, bytes(100)),
        (DEEP | {277: 60_000}, bytes(100)),
        (DEEP | {322: 2**31, 323: 2**31, 324: 8, 325: 64}, bytes(100)),
        (DEEP | {322: 1 << 20, 323: 1 << 20, 324: 8, 325: 64, 259: 8}, bytes(100)),
        (DEEP | {256: 30_000, 257: 30_000}, bytes(100)),
    ],
    ids=("short", "short, packed", "bomb", "no LZW", "gigabyte", "strip", "channels", "tile", "packed tile", "pixels"),
)
def test_hostile_layouts_cost_nothing(tags: dict[int, int], body: bytes, tmp_path: Path) -> None:
    file = tmp_path / "hostile.tif"
    file.write_bytes(uncompressed(tags, body))
    with pytest.raises(PictureError) as caught:
        open_picture(file)
    assert str(caught.value).isprintable()
    assert peak_growth_of_opening(file) < 120 * MIB  # tifffile and its codecs themselves take 60


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits"])
def test_a_truncated_deep_tiff_is_refused(compression: str | None) -> None:
    noise = np.random.default_rng(0).integers(0, 1 << 16, (48, 32, 3), dtype=np.uint16)
    data = tiff(noise, photometric="rgb", planarconfig="separate", compression=compression)
    assert open_picture(data).size == (32, 48)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(PictureError, match="TIFF"):
            open_picture(data[: int(len(data) * part)])
