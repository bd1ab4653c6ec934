"""From an opened picture to its views, in bytes: what the vision encoder is fed, before it is normalised.

In: a `PIL.Image.Image` of mode RGB, of any size. Out: W views of size x size pixels.

    standard   the whole picture, squashed to size x size, or (`"pad"`) laid on a grey square first
    HD         the whole picture as above, then the picture laid on a grey square, resized to grid*size and cut into
               grid x grid tiles, row by row

Pixels are those of Pillow's bicubic resize, bit for bit as in the published code, but the grey square is never made
whole, so that a long strip costs no more than its own pixels: Pillow resizes along rows first, then along columns, and
rounds in between, so rows of a wide picture hold no grey, rows of a tall one are widened a strip at a time, and columns
can be had some at a time, by several threads.

Nothing here needs torch: a server opens strangers' pictures in processes without it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from PIL import Image

PAD_COLOR = (127, 127, 127)
"""The published code's grey around a picture that is made square."""
PAD = "pad"
STRIP_ROWS = 256
"""Rows of a tall picture that are laid on grey at a time."""
MOST_THREADS = 4
"""More than these would have too little each."""
DIGEST_BYTES = 16
DIGESTED_BYTES = 1 << 17
"""Of pixels at a time: they stay in the processor's cache, which takes half the time of all at once."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ViewSettings:
    """How a model wants its views.

    Attributes:
        side: of a view, in pixels.
        grid: tiles in a row of HD; 1 for models that take the whole view alone.
        aspect: how the whole picture becomes square, "square" or "pad".
        resample: Pillow's number for how pixels are interpolated.
    """

    side: int
    grid: int = 1
    aspect: str = "square"
    resample: int = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class PictureViews:
    """A picture's views, and which picture it is.

    Attributes:
        size: (width, height) of the picture, as it was opened.
        digest: see :func:`digest`.
        views: uint8 [W, side, side, 3].
    """

    size: tuple[int, int]
    digest: bytes
    views: np.ndarray


def digest(picture: Image.Image) -> bytes:
    """A picture's identity: its mode, size and pixels."""
    content = hashlib.new("blake2b", f"{picture.mode} {picture.size}".encode())  # OpenSSL's: twice as fast as Python's
    rows = max(1, DIGESTED_BYTES // max(1, picture.width * len(picture.getbands())))
    for top in range(0, picture.height, rows):
        content.update(picture.crop((0, top, picture.width, min(top + rows, picture.height))).tobytes())
    return content.digest()[:DIGEST_BYTES]


def picture_views(image: Image.Image, settings: ViewSettings, count: int) -> PictureViews:
    """The first `count` views of a picture: 1 for the whole view alone, or all of them."""
    views = np.empty((count, settings.side, settings.side, 3), np.uint8)

    def keep(number: int, view: Image.Image) -> None:
        views[number] = np.asarray(view)

    draw_views(image, settings, count, keep)
    return PictureViews(image.size, digest(image), views)


def draw_views(
    image: Image.Image,
    settings: ViewSettings,
    count: int,
    use: Callable[[int, Image.Image], None],
    threads: int = 1,
) -> None:
    """Make the whole view and, where more than one is asked for, the tiles row by row; hand each over with its number.

    Args:
        image: of mode RGB.
        settings: of the model.
        count: how many views are wanted: 1, or all.
        use: takes a view's number and pixels, in whichever thread has made it.
        threads: that share the work.
    """
    side, grid, resample = settings.side, settings.grid, settings.resample

    def whole() -> Image.Image:
        if settings.aspect == PAD:
            return resize_on_square(image, side, resample)
        return image.resize((side, side), resample)

    if count == 1:
        use(0, whole())
        return
    large = side * grid
    small, rows = side_by_side(lambda make: make(), (whole, lambda: widen_on_square(image, large, resample)), threads)

    def tiles(column: int) -> None:
        """A column of tiles; the whole picture counts as one before the first."""
        if column < 0:
            use(0, small)
            return
        left = column * side
        strip = columns_on_square(rows, max(image.size), (left, left + side), large, resample)
        for row in range(grid):
            use(1 + row * grid + column, strip.crop((0, row * side, side, (row + 1) * side)))

    side_by_side(tiles, range(-1, grid), threads)


def resize_on_square(image: Image.Image, side: int, resample: int = Image.Resampling.BICUBIC) -> Image.Image:
    """Lay a picture in the middle of a grey square and resize the square to `side` x `side`."""
    return columns_on_square(widen_on_square(image, side, resample), max(image.size), (0, side), side, resample)


def widen_on_square(image: Image.Image, side: int, resample: int = Image.Resampling.BICUBIC) -> Image.Image:
    """The first half: the picture's rows, with grey beside them, in the new width; `side` x the picture's height."""
    width, height = image.size
    if width >= height:
        return image.resize((side, height), resample)
    rows = Image.new("RGB", (side, height), PAD_COLOR)
    for start in range(0, height, STRIP_ROWS):
        strip = image.crop((0, start, width, min(start + STRIP_ROWS, height)))
        widened = Image.new("RGB", (height, strip.height), PAD_COLOR)
        widened.paste(strip, ((height - width) // 2, 0))
        rows.paste(widened.resize((side, strip.height), resample), (0, start))
    return rows


def columns_on_square(
    rows: Image.Image,
    square: int,
    columns: tuple[int, int],
    side: int,
    resample: int = Image.Resampling.BICUBIC,
) -> Image.Image:
    """The second half, for some columns (from, to): the widened rows, in a square of that height, in the new one.

    Returns:
        A picture of (to - from) x `side`.
    """
    first, last = columns
    canvas = Image.new("RGB", (last - first, square), PAD_COLOR)
    canvas.paste(rows.crop((first, 0, last, rows.height)), (0, (square - rows.height) // 2))
    return canvas.resize((last - first, side), resample)


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Do the work for each item, in so many threads, and not more than are of use."""
    listed, threads = list(items), min(MOST_THREADS, threads)
    return [work(item) for item in listed] if threads == 1 else list(_threads(os.getpid(), threads).map(work, listed))


@cache
def _threads(process: int, count: int) -> Executor:
    """The threads of this process: one that it forked has none of them."""
    return ThreadPoolExecutor(count, "flashsloth-pictures")
