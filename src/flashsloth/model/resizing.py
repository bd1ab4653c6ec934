"""Resizing pictures on a grey square, as the published code does, without making the square.

In: RGB pictures. Out: the pixels of Pillow's resize of the square, bit for bit.

Pillow resizes along rows first, then along columns, and rounds in between: rows of a wide picture hold no grey, rows of
a tall one are widened a strip at a time, and columns can be had some at a time, by several threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from PIL import Image
from transformers.image_utils import PILImageResampling

PAD_COLOR = (127, 127, 127)
"""The published code's grey around a picture that is made square."""
STRIP_ROWS = 256
"""Rows of a tall picture that are laid on grey at a time."""
MOST_THREADS = 4
"""More than these would have too little each."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def resize_on_square(image: Image.Image, side: int, resample: int = PILImageResampling.BICUBIC) -> Image.Image:
    """Lay a picture in the middle of a grey square and resize the square to `side` x `side`."""
    return columns_on_square(widen_on_square(image, side, resample), max(image.size), (0, side), side, resample)


def widen_on_square(image: Image.Image, side: int, resample: int = PILImageResampling.BICUBIC) -> Image.Image:
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
    resample: int = PILImageResampling.BICUBIC,
) -> Image.Image:
    """The second half, for some columns (from, to): the widened rows, in a square of that height, in the new one.

    Returns:
        A picture of (to - from) x `side`.
    """
    first, last = columns
    canvas = Image.new("RGB", (last - first, square), PAD_COLOR)
    canvas.paste(rows.crop((first, 0, last, rows.height)), (0, (square - rows.height) // 2))
    return canvas.resize((last - first, side), resample)


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the work for each item, in as many threads as torch takes (one in a data loader's worker)."""
    listed = list(items)
    threads = min(MOST_THREADS, torch.get_num_threads())
    return [work(item) for item in listed] if threads == 1 else list(_threads(os.getpid(), threads).map(work, listed))


@cache
def _threads(process: int, count: int) -> Executor:
    """The threads of this process: one that it forked has none of them."""
    return ThreadPoolExecutor(count, "flashsloth-pictures")


__all__ = ["PAD_COLOR", "columns_on_square", "resize_on_square", "side_by_side", "widen_on_square"]
