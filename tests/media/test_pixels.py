"""Every kind of pixel becomes the RGB that a person would see, and the caller's image stays as it was."""

import struct

import numpy as np
import pytest
from picture_files import (
    BLUE,
    GREEN,
    GREY,
    PNG_GREY,
    PNG_RGB,
    RED,
    corners,
    encoded,
    exif_with_orientation,
    grey_tiff,
    png,
)
from PIL import Image, ImageCms

from flashsloth.media import PictureError, open_picture
from flashsloth.media.pixels import BAND_PIXELS, exif_orientation

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
# Where EXIF's orientation says that the stored first row and first column are -> how the picture is seen.
SEEN = {
    1: [[RED, GREEN], [BLUE, GREY]],
    2: [[GREEN, RED], [GREY, BLUE]],
    3: [[GREY, BLUE], [GREEN, RED]],
    4: [[BLUE, GREY], [RED, GREEN]],
    5: [[RED, BLUE], [GREEN, GREY]],
    6: [[BLUE, RED], [GREY, GREEN]],
    7: [[GREY, GREEN], [BLUE, RED]],
    8: [[GREEN, GREY], [RED, BLUE]],
}


def quarters(image: Image.Image) -> np.ndarray:
    """The colours in the middle of the four quarters, [2, 2, 3]."""
    pixels = np.asarray(image).astype(int)
    height, width = pixels.shape[:2]
    return pixels[height // 4 :: height // 2, width // 4 :: width // 2]


def levels(image: Image.Image) -> list[int]:
    """The grey levels of an RGB image whose bands are all alike, row by row."""
    pixels = np.asarray(image)
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0].ravel().tolist()


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(corners(), kind, exif=exif_with_orientation(orientation), **options)
    assert np.abs(quarters(open_picture(data)) - np.array(SEEN[orientation])).max() <= 2


def test_official_policy_leaves_orientation_and_transparency() -> None:
    data = encoded(corners(), "PNG", exif=exif_with_orientation(6))
    assert open_picture(data, image_policy="official").size == corners().size
    glass = Image.new("RGBA", (2, 2), (*RED, 0))
    assert open_picture(glass, image_policy="official").getpixel((0, 0)) == RED
    assert open_picture(glass).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(3, "H2x"), (4, "I"), (1, "B3x")])
def test_orientation_entry_in_either_byte_order_and_any_integer_type(order: str, kind: int, code: str) -> None:
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    other = struct.pack(order + "HHII", 271, 4, 1, 3)
    entry = struct.pack(order + "HHI" + code, 274, kind, 1, 8)
    exif = mark + struct.pack(order + "IH", 8, 2) + other + entry
    assert exif_orientation(exif) == 8
    assert exif_orientation(b"Exif\x00\x00" * 2 + exif) == 8
    assert all(exif_orientation(exif[:end]) is None for end in range(len(exif) - 4))


@pytest.mark.parametrize(
    "broken", [b"", b"Exif\x00\x00", b"II*\x00\xff\xff\xff\xff", b"Exif\x00\x00MM\x00*\x00\x00", b"x" * 99]
)
def test_broken_exif_is_as_good_as_none(broken: bytes) -> None:
    assert open_picture(encoded(corners(), "JPEG", exif=broken)).size == corners().size
    image = corners()
    image.info["exif"] = broken
    assert open_picture(image).size == corners().size


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_upright(value: int) -> None:
    assert open_picture(encoded(corners(), "PNG", exif=exif_with_orientation(value))).size == corners().size


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white(kind: str) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (0, 0, 200, alpha))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = np.asarray(open_picture(encoded(image, kind, **options))).astype(int)[0]
    assert np.abs(pixels - [WHITE, (127, 127, 227), (0, 0, 200)]).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_every_mode_with_alpha(mode: str) -> None:
    clear = Image.new(mode, (2, 1))  # all zeros: black, wholly transparent
    assert levels(open_picture(clear)) == [255, 255]


def test_palette_transparency_as_one_entry_and_as_many() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for x in range(3):
        image.putpixel((x, 0), x)
    one = open_picture(encoded(image, "PNG", transparency=1))
    assert np.array_equal(np.asarray(one)[0], [RED, WHITE, BLUE])
    many = open_picture(encoded(image, "PNG", transparency=bytes([255, 0, 128])))
    assert np.abs(np.asarray(many)[0].astype(int) - [RED, WHITE, (132, 137, 237)]).max() <= 1
    gif = open_picture(encoded(image, "GIF", transparency=2))
    assert np.array_equal(np.asarray(gif)[0], [RED, GREEN, WHITE])


def test_palette_without_transparency_in_every_depth() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    for bits in (1, 2, 4, 8):
        opened = open_picture(encoded(image, "PNG", bits=bits))
        assert np.array_equal(np.asarray(opened)[0], [RED, GREEN])


@pytest.mark.parametrize(
    ("depth", "row", "key", "expected"),
    [
        (1, b"\x40", 1, [0, 255]),
        (2, b"\x90", 1, [170, 255]),  # values 2, 1
        (4, b"\x9a", 9, [255, 170]),  # values 9, 10
        (8, b"\x09\x0a", 9, [255, 10]),
        (16, b"\x09\x01\x09\x02", 0x0901, [255, 9]),
    ],
)
def test_transparent_grey_of_a_png_in_every_depth(depth: int, row: bytes, key: int, expected: list[int]) -> None:
    data = png(2, 1, depth, PNG_GREY, b"\0" + row, (b"tRNS", struct.pack(">H", key)))
    assert levels(open_picture(data)) == expected


@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_colour_of_a_png(depth: int) -> None:
    stored = [value * (257 if depth == 16 else 1) for value in (*RED, *GREEN)]
    rows = b"\0" + struct.pack(f">6{'H' if depth == 16 else 'B'}", *stored)
    opened = open_picture(png(2, 1, depth, PNG_RGB, rows, (b"tRNS", struct.pack(">3H", *stored[:3]))))
    assert np.array_equal(np.asarray(opened)[0], [WHITE, GREEN])


@pytest.mark.parametrize("key", [300, -1, "red", (1, 2), (1, 2, 999), b"\x01" * 300, None, 1.5])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16", "CMYK"])
def test_transparency_that_names_no_colour_is_ignored(mode: str, key: object) -> None:
    image = Image.new(mode, (2, 2))
    plain = open_picture(image)
    image.info["transparency"] = key
    opened = open_picture(image)
    if mode == "P" and isinstance(key, bytes):  # one alpha for each palette entry, and some to spare
        assert np.abs(np.asarray(opened).astype(int) - np.asarray(plain) - 254).max() <= 1
    else:
        assert np.array_equal(np.asarray(opened), np.asarray(plain))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_sixteen_bit_grey_keeps_its_high_byte(mode: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (5, 1), values.tobytes())
    assert levels(open_picture(image)) == [0, 0, 1, 128, 255]


def test_sixteen_bit_files() -> None:
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    image = Image.fromarray(values)
    for kind in ("PNG", "TIFF"):
        assert levels(open_picture(encoded(image, kind))) == [0, 1, 128, 255]
    white_is_zero = grey_tiff(4, 1, 16, values.tobytes(), photometric=0)
    assert levels(open_picture(white_is_zero)) == [255, 254, 127, 0]
    colours = struct.pack(">6H", *(level * 256 + 77 for level in (*RED, *GREEN)))
    assert np.array_equal(np.asarray(open_picture(png(2, 1, 16, PNG_RGB, b"\0" + colours)))[0], [RED, GREEN])


def test_twelve_bit_tiff_is_not_sixteen_times_too_dark() -> None:
    assert levels(open_picture(grey_tiff(2, 1, 12, b"\xff\xf8\x00"))) == [255, 128]  # values 0xfff, 0x800


def test_a_deep_picture_of_several_bands() -> None:
    width, height = 1024, BAND_PIXELS // 1024 * 2 + 3
    values = np.arange(width * height, dtype=np.uint32).astype(np.uint16).reshape(height, width)
    opened = np.asarray(open_picture(Image.fromarray(values)))
    assert np.array_equal(opened[:, :, 1], values >> 8)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 10.4, 255.0], [0, 10, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([-3.0, -3.0, -3.0], [0, 0, 0]),
        ([0.0, 5e5, 1e6], [0, 128, 255]),
    ],
)
def test_float_grey_by_its_range(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert levels(open_picture(image)) == expected
    assert levels(open_picture(encoded(image, "TIFF"))) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 255], [0, 1, 255]),
        ([0, 511, 65535], [0, 1, 255]),
        ([-10, 0, 10], [0, 128, 255]),
        ([0, 1 << 19, 1 << 20], [0, 128, 255]),
    ],
)
def test_32_bit_grey_by_its_range(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert levels(open_picture(image)) == expected
    assert levels(open_picture(encoded(image, "TIFF"))) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_float_grey_that_is_not_finite_is_refused(bad: float, place: int) -> None:
    values = np.zeros((1, 3), dtype=np.float32)
    values[0, place] = bad
    with pytest.raises(PictureError, match="NaN or infinite"):
        open_picture(Image.fromarray(values))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind: str) -> None:
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(corners().convert("CMYK"), kind, **options)
    if kind == "JPEG":
        assert b"Adobe" in data  # such files store their inks inverted
    assert np.abs(quarters(open_picture(data)) - np.array(SEEN[1])).max() <= 3


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces(mode: str) -> None:
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.buildTransform(*profiles, "RGB", "LAB").apply(corners())
    else:
        image = corners().convert(mode)
    for source in (image, encoded(image, "TIFF")):
        # 8-bit LAB is coarse where colours are strong.
        assert np.abs(quarters(open_picture(source)) - np.array(SEEN[1])).max() <= (25 if mode == "LAB" else 3)


def test_one_bit() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 255)
    for source in (image, encoded(image, "PNG"), encoded(image, "TIFF", compression="group4"), encoded(image, "BMP")):
        assert levels(open_picture(source)) == [0, 255]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
@pytest.mark.parametrize("policy", ["careful", "official"])
def test_the_callers_image_is_left_as_it_was(mode: str, policy: str) -> None:
    image = Image.new(mode, (6, 4))
    image.info["exif"] = exif_with_orientation(6).tobytes()
    if mode in ("L", "P"):
        image.info["transparency"] = 0
    info, pixels, palette = dict(image.info), image.tobytes(), image.getpalette("RGBA") if mode == "P" else None
    opened = open_picture(image, image_policy=policy)
    assert opened is not image
    assert (opened.mode, opened.info) == ("RGB", {})
    opened.paste((1, 2, 3), (0, 0, *opened.size))
    assert (image.mode, image.size, image.info, image.tobytes()) == (mode, (6, 4), info, pixels)
    if mode == "P":
        assert image.getpalette("RGBA") == palette
