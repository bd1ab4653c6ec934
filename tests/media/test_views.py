"""Views of a picture in bytes: those of the image processor, and without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import picture

from flashsloth.media.views import PAD_COLOR, digest, picture_views, resize_on_square
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil

SIDE = 48
SIZES = [(640, 480), (48, 48), (37, 411), (1, 300), (300, 1), (1023, 255)]


@pytest.mark.parametrize("size", [(700, 3), (3, 700), (701, 256), (5, 1000), (999, 1000)])
def test_the_grey_square_is_never_missed(size: tuple[int, int]) -> None:
    image = picture(1, *size)
    for resample in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR):
        square = max(size)
        canvas = Image.new("RGB", (square, square), PAD_COLOR)
        canvas.paste(image, ((square - size[0]) // 2, (square - size[1]) // 2))
        expected = np.asarray(canvas.resize((96, 96), resample))
        assert np.array_equal(np.asarray(resize_on_square(image, 96, resample)), expected)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("aspect", "grid", "count"), [("square", 1, 1), ("pad", 1, 1), ("pad", 2, 5), ("pad", 2, 1)])
def test_normalised_they_are_the_image_processors(size: tuple[int, int], aspect: str, grid: int, count: int) -> None:
    processor = FlashSlothImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_aspect_ratio=aspect, image_grid=grid, image_mean=[0.1, 0.5, 0.7]
    )
    image = picture(0, *size)
    made = picture_views(image, processor.view_settings, count)
    assert made.size == size
    assert made.digest == digest(image)
    assert made.views.shape == (count, SIDE, SIDE, 3)
    resolution = "standard" if count == 1 else "hd"
    expected = processor(image, resolution=resolution, return_tensors="np")["pixel_values"]
    ours = processor.normalised(made.views).numpy()
    assert ours.dtype == expected.dtype
    assert np.array_equal(ours, expected)


def test_a_process_without_torch_makes_them() -> None:
    code = (
        "import sys\n"
        "from PIL import Image\n"
        "from flashsloth.media.views import ViewSettings, picture_views\n"
        "assert picture_views(Image.new('RGB', (9, 5)), ViewSettings(4, 2), 5).views.shape == (5, 4, 4, 3)\n"
        "print([name for name in ('torch', 'transformers', 'pydantic') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
