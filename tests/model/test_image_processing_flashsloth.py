"""The image processor against the plain way to write it, bit for bit, and against pictures that would eat memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import run_python
from PIL import Image
from tiny import picture

from flashsloth.media.views import PAD_COLOR
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil

SIDE = 384
SIZES = [(640, 480), (480, 640), (384, 384), (37, 411), (411, 37), (1, 1), (1, 300), (300, 1), (2, 3), (1023, 255)]
MEMORY = 160 * 2**20
"""Bytes. In Pillow the grey square around 12000x1 pixels alone would take 576 MB, around 30000x1 3.6 GB."""


def plain_square(image: Image.Image, side: int) -> Image.Image:
    """Make the grey square, whole, and resize it."""
    square = max(image.size)
    canvas = Image.new("RGB", (square, square), PAD_COLOR)
    canvas.paste(image, ((square - image.width) // 2, (square - image.height) // 2))
    return canvas.resize((side, side), Image.Resampling.BICUBIC)


def plain_values(view: Image.Image) -> np.ndarray:
    """Float32 [3, side, side] in -1..1."""
    values = np.asarray(view, dtype=np.float64) / 255
    return ((values - 0.5) / 0.5).transpose(2, 0, 1)


def plain_views(image: Image.Image, aspect: str, grid: int) -> list[Image.Image]:
    squashed = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    views = [plain_square(image, SIDE) if aspect == "pad" else squashed]
    if grid > 1:
        large = plain_square(image, grid * SIDE)
        for row in range(grid):
            for column in range(grid):
                x, y = column * SIDE, row * SIDE
                views.append(large.crop((x, y, x + SIDE, y + SIDE)))
    return views


def to_bytes(pixel_values: np.ndarray) -> np.ndarray:
    return np.rint((pixel_values * 0.5 + 0.5) * 255).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("aspect", "grid"), [("square", 1), ("pad", 1), ("square", 2)])
def test_pixels_are_those_of_the_plain_way(size: tuple[int, int], aspect: str, grid: int) -> None:
    image = picture(0, *size)
    processor = FlashSlothImageProcessorPil(image_aspect_ratio=aspect, image_grid=grid)
    [views] = processor(image, return_tensors="np")["pixel_values"]
    expected = plain_views(image, aspect, grid)
    assert views.dtype == np.float32
    assert len(views) == len(expected) == processor.num_views
    for ours, theirs in zip(views, expected, strict=True):
        assert np.array_equal(to_bytes(ours), np.asarray(theirs).transpose(2, 0, 1))
        assert np.abs(ours - plain_values(theirs)).max() < 1e-6


def test_a_long_strip_needs_little_memory() -> None:
    pytest.importorskip("resource", reason="peak memory is read with the resource module, which this system lacks")
    script = (
        "import resource, sys\n"
        "from PIL import Image\n"
        "from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil\n"
        "unit = 1 if sys.platform == 'darwin' else 1024\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit\n"
        "processor = FlashSlothImageProcessorPil(image_grid=2)\n"
        "before = peak()\n"
        "for size in ((30000, 1), (1, 12000)):\n"
        "    processor(Image.new('RGB', size), return_tensors='np')\n"
        "print(peak() - before)\n"
    )
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MEMORY


@pytest.mark.parametrize("channels", ["last", "first"])
def test_arrays_and_tensors_are_pictures(channels: str) -> None:
    image = picture(2)
    processor = FlashSlothImageProcessorPil()
    expected = processor(image, return_tensors="np")["pixel_values"]
    pixels = np.asarray(image)
    pixels = pixels if channels == "last" else pixels.transpose(2, 0, 1)
    for given in (pixels, pixels.astype(np.float32) / 255, torch.tensor(pixels), torch.tensor(pixels).double() / 255):
        assert np.array_equal(processor(given, return_tensors="np")["pixel_values"], expected)


def test_other_modes_become_rgb() -> None:
    image = picture(3)
    processor = FlashSlothImageProcessorPil()
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        converted = image.convert(mode)
        ours = processor(converted, return_tensors="np")["pixel_values"]
        assert np.array_equal(ours, processor(converted.convert("RGB"), return_tensors="np")["pixel_values"])
    grey = np.asarray(image.convert("L"))
    expected = processor(image.convert("L"), return_tensors="np")["pixel_values"]
    for given in (grey, grey[..., None], grey[None], torch.tensor(grey)):
        assert np.array_equal(processor(given, return_tensors="np")["pixel_values"], expected)


def test_several_pictures_of_different_sizes() -> None:
    pictures = [picture(seed, 20 + seed, 50) for seed in range(3)]
    processor = FlashSlothImageProcessorPil(image_grid=2)
    together = processor(pictures, return_tensors="pt")["pixel_values"]
    assert together.shape == (3, 5, 3, SIDE, SIDE)
    for image, views in zip(pictures, together, strict=True):
        assert torch.equal(processor(image, return_tensors="pt")["pixel_values"][0], views)


def test_a_batch_in_one_array_and_files(tmp_path: Path) -> None:
    pictures = [picture(seed) for seed in range(2)]
    processor = FlashSlothImageProcessorPil()
    expected = processor(pictures, return_tensors="np")["pixel_values"]
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for image, path in zip(pictures, paths, strict=True):
        image.save(path)
    arrays = np.stack([np.asarray(image) for image in pictures])
    for given in (arrays, torch.tensor(arrays), paths, [str(path) for path in paths], [[pictures[0]], pictures[1:]]):
        assert np.array_equal(processor(given, return_tensors="np")["pixel_values"], expected)


def test_settings_for_one_call() -> None:
    image = picture(4)
    processor = FlashSlothImageProcessorPil()
    small = processor(image, size={"height": 32, "width": 32}, do_normalize=False, return_tensors="np")["pixel_values"]
    assert small.shape == (1, 1, 3, 32, 32)
    assert 0 <= small.min() < small.max() <= 1
    raw = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    expected = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(raw[0, 0], expected.astype(np.float32))


def test_floats_are_fractions_whether_rescaled_or_not() -> None:
    """Bytes without `do_rescale` stay bytes; floats, of which 0 to 1 is asked, are not made bytes of."""
    processor, pixels = FlashSlothImageProcessorPil(), np.asarray(picture(7))
    fractions = pixels / 255
    expected = processor(pixels, return_tensors="np")["pixel_values"]
    for given in (fractions, fractions.astype(np.float32), torch.tensor(fractions), torch.tensor(fractions).bfloat16()):
        for settings in ({}, {"do_rescale": False}):
            assert np.abs(processor(given, return_tensors="np", **settings)["pixel_values"] - expected).max() <= 0.009
    assert processor(pixels, do_rescale=False, return_tensors="np")["pixel_values"].max() > 255


def test_deep_grey_is_narrowed_and_what_pillow_mixes_up_is_refused() -> None:
    """Pillow's `convert("RGB")` makes all of the first white, and noise of the second."""
    levels = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    processor = FlashSlothImageProcessorPil(size={"height": 30, "width": 30})
    deep, plain = (
        processor(Image.fromarray(grey), return_tensors="np")["pixel_values"]
        for grey in (levels, (levels >> 8).astype(np.uint8))
    )
    assert np.array_equal(deep, plain)
    planes = io.BytesIO()
    tifffile = pytest.importorskip("tifffile", reason="tifffile (flashsloth[pictures]) is not installed")
    tifffile.imwrite(planes, np.zeros((3, 8, 8), np.uint16), photometric="rgb", planarconfig="separate")
    with Image.open(planes) as image, pytest.raises(ValueError, match="a TIFF whose pixels Pillow mixes up"):
        processor(image)


def test_none_is_the_processors_own_setting() -> None:
    processor, image = FlashSlothImageProcessorPil(image_grid=2), picture(3)
    nothing = dict.fromkeys(("do_rescale", "do_normalize", "image_mean", "rescale_factor", "size", "image_grid"))
    plain, told = (processor(image, return_tensors="np", **given)["pixel_values"] for given in ({}, nothing))
    assert np.array_equal(plain, told)


def test_save_and_load(tmp_path: Path) -> None:
    processor = FlashSlothImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid=2, image_aspect_ratio="pad", image_mean=[0.1, 0.2, 0.3]
    )
    processor.save_pretrained(tmp_path)
    loaded = FlashSlothImageProcessorPil.from_pretrained(tmp_path)
    image = picture(5)
    ours, theirs = (made(image, return_tensors="np")["pixel_values"] for made in (processor, loaded))
    assert ours.shape == (1, 5, 3, 28, 28)
    assert np.array_equal(ours, theirs)


ERRORS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "not a square": (picture(), {"size": {"height": 10, "width": 20}}, "size is 10x20, expected a square"),
    "aspect": (picture(), {"image_aspect_ratio": "crop"}, "'crop', expected one of"),
    "grid": (picture(), {"image_grid": 0}, "image_grid is 0, expected at least 1"),
    "values": (np.full((8, 8, 3), 300.0), {}, "300"),
    "not numbers": (np.full((8, 8, 3), np.nan), {}, "NaN"),
    "dimensions": (np.zeros((2, 2, 4, 4, 3), np.uint8), {}, "2×2×4×4×3"),
    "a file that is not there": ("/nowhere.png", {}, "/nowhere.png"),
    "an address": ("https://example.org/a.png", {}, "nothing is fetched"),
    "no pixels": (np.zeros((0, 4, 3), np.uint8), {}, "0"),
    "channels": (np.zeros((5, 5, 2), np.uint8), {}, "5×5×2"),
    "no picture": (3, {}, "int is not a picture"),
    "nothing": ([], {}, "no picture"),
    "an option of another type": (picture(), {"image_std": "half"}, "image_std"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_mistake_is_answered_in_one_line(case: str) -> None:
    given, settings, message = ERRORS[case]
    with pytest.raises(ValueError, match=message) as error:
        FlashSlothImageProcessorPil()(given, return_tensors="np", **settings)
    assert "\n" not in str(error.value)
