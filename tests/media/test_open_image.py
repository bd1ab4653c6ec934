"""Arrays, tensors and lists of pictures; what is ambiguous is refused with its reason."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from picture_files import BLUE, GREEN, RED, corners, encoded
from PIL import Image

from flashsloth.media import MediaLimits, PictureError, open_picture, open_pictures

COLOURS = np.asarray(corners())  # [16, 24, 3]


@pytest.mark.parametrize(
    "source",
    [
        COLOURS,
        COLOURS.transpose(2, 0, 1),
        COLOURS[::-1][::-1],
        COLOURS / 255,
        (COLOURS / 255).astype(np.float16),
        torch.from_numpy(COLOURS.copy()),
        torch.from_numpy(COLOURS.copy()).permute(2, 0, 1),
        torch.from_numpy(COLOURS / 255).permute(2, 0, 1).requires_grad_(),
        COLOURS / 255 * (1 + 1e-6),
        np.dstack([COLOURS, np.full(COLOURS.shape[:2], 255, np.uint8)]),
    ],
)
def test_arrays_and_tensors(source: Any) -> None:
    opened = open_picture(source)
    assert (opened.mode, opened.size) == ("RGB", corners().size)
    assert np.array_equal(np.asarray(opened), COLOURS)


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 1), (1, 16, 24)])
def test_grey_arrays(shape: tuple[int, ...]) -> None:
    opened = open_picture(COLOURS[:, :, 0].reshape(shape))
    assert np.array_equal(np.asarray(opened), COLOURS[:, :, :1].repeat(3, axis=2))


def test_bfloat16_loses_no_more_than_it_must() -> None:
    opened = open_picture(torch.from_numpy(COLOURS / 255).to(torch.bfloat16))
    assert np.abs(np.asarray(opened).astype(int) - COLOURS).max() <= 1


def test_the_alpha_of_an_array_is_laid_on_white() -> None:
    glass = np.dstack([COLOURS, np.zeros(COLOURS.shape[:2], np.uint8)])
    assert np.asarray(open_picture(glass)).min() == 255
    assert np.array_equal(np.asarray(open_picture(glass, image_policy="official")), COLOURS)


def test_an_array_is_not_shared() -> None:
    array = COLOURS.copy()
    opened = open_picture(array)
    array[:] = 0
    assert np.array_equal(np.asarray(opened), COLOURS)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((3, 9, 3), np.uint8), "can be read as H×W×C and as C×H×W"),
        (np.zeros((1, 9, 4), np.uint8), "can be read as H×W×C and as C×H×W"),
        (np.zeros((2, 3, 8, 8), np.uint8), "a batch"),
        (np.zeros((8, 9, 2), np.uint8), "expected H×W"),
        (np.zeros((8, 9, 10), np.uint8), "expected H×W"),
        (np.zeros(9, np.uint8), "expected H×W"),
        (np.array(7, np.uint8), "expected H×W"),
        (np.zeros((0, 9, 3), np.uint8), "expected at least 1×1"),
        (np.zeros((9, 0)), "expected at least 1×1"),
        (np.zeros((9, 9), np.uint16), "uint16; expected uint8"),
        (np.zeros((9, 9), np.int64), "int64; expected uint8"),
        (np.zeros((9, 9), bool), "bool; expected uint8"),
        (np.full((9, 9), "a"), "expected uint8"),
        (np.full((9, 9), None), "object; expected uint8"),
        (np.full((9, 9), 255.0), "floats from 255 to 255"),
        (np.linspace(-1, 1, 81).reshape(9, 9), "undo a normalization"),
        (np.full((9, 9), np.nan), "NaN or infinite"),
        (np.where(np.eye(9) > 0, np.inf, 0), "NaN or infinite"),
        (np.where(np.eye(9) > 0, np.nan, 0).astype(np.float16), "NaN or infinite"),
        (torch.zeros(2, 3, 8, 8), "a batch"),
        (torch.zeros(8, 8, device="meta"), "tensor: cannot be read"),
        (torch.zeros(8, 8).to_sparse(), "tensor: cannot be read"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{value.dtype} {tuple(value.shape)}",
)
def test_arrays_with_no_one_answer(array: Any, why: str) -> None:
    with pytest.raises(PictureError) as caught:
        open_picture(array)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


def test_one_picture_a_list_of_them_and_none() -> None:
    data = encoded(corners(), "PNG")
    assert open_pictures(None) == []
    assert open_pictures([]) == []
    for sources in (data, corners(), COLOURS):
        assert [picture.tobytes() for picture in open_pictures(sources)] == [corners().tobytes()]
    for sources in ([data, COLOURS], (corners(), data)):
        assert [picture.tobytes() for picture in open_pictures(sources)] == [corners().tobytes()] * 2
    limits = MediaLimits(max_side=10)
    with pytest.raises(PictureError, match="max_side"):
        open_pictures(data, limits=limits)
    glass = Image.new("RGBA", (2, 2), (*RED, 0))
    assert open_pictures([glass], image_policy="official")[0].getpixel((0, 0)) == RED


@pytest.mark.parametrize("bad", [None, b"", [corners()], 7])
def test_of_a_list_the_error_says_which(bad: Any) -> None:
    with pytest.raises(PictureError, match=r"^picture 2 of 3: "):
        open_pictures([corners(), bad, corners()])


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of careful, official"):
        open_picture(corners(), image_policy="carefull")  # type: ignore[arg-type]


def test_a_lazy_image_of_the_caller_is_loaded_and_left_open(tmp_path: Any) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.tif") as image:
        image.seek(1)  # the caller's choice of frame stands
        assert open_picture(image).getpixel((0, 0)) == GREEN
        image.seek(2)
        assert open_picture(image).getpixel((0, 0)) == BLUE


def test_a_lazy_image_of_the_caller_that_is_damaged(tmp_path: Any) -> None:
    data = encoded(corners(), "PNG")
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(PictureError, match="damaged or unusual PNG"):
        open_picture(image)


def test_torch_is_not_needed() -> None:
    script = "import sys, flashsloth.media; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
