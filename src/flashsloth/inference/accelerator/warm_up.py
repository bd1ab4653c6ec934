"""Paying ahead for what is paid once: compiling and recording the passes that answers will need.

In: a FlashSloth, how many answers at once, how long they get. Out: what it took.

Compiled code is kept on disk by torch (in `TORCHINDUCTOR_CACHE_DIR`, if that is set), so the next process compiles the
same passes in a fraction of the time; recordings live as long as the process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from flashsloth.inference.accelerator.engine import Engine
from flashsloth.inference.accelerator.pairs import usual_columns
from flashsloth.inference.accelerator.settings import bucket
from flashsloth.inference.errors import PromptError
from flashsloth.inference.options import Options

if TYPE_CHECKING:
    from flashsloth.inference.pipeline import FlashSloth

USUAL_NEW_TOKENS = 512
SIDE = 32
"""Of the pictures drawn to warm up, in pixels: views have one size whatever the picture's."""
SHORT_ANSWER = 2
QUESTIONS = ("What is this?", "What is written on the sign to the left of the person in the middle of the picture?")
"""A short one and one of usual length."""


@dataclass(frozen=True)
class WarmUp:
    """What warming up took.

    Attributes:
        seconds: in all.
        compile_seconds: of them, compiling.
        recorded: passes of some shape that are recorded now.
        kept_in: where torch keeps compiled code; None where nothing was compiled.
    """

    seconds: float
    compile_seconds: float
    recorded: int
    kept_in: str | None


def warm_up(sloth: FlashSloth, batch: int = 1, columns: int | None = None) -> WarmUp:
    """Answer questions about drawn pictures, one at a time and `batch` at once, and make steps of every width.

    Pictures remembered so far are forgotten.

    Raises:
        PromptError: for a batch or a length that cannot be.
    """
    if batch < 1 or (columns is not None and columns < 1):
        raise PromptError(f"batch is {batch}, columns is {columns}; expected at least 1 of each")
    start = time.perf_counter()
    engine = sloth.generator.engine
    numbers = iter(range(1 << 30))
    for question in QUESTIONS:
        picture = _picture(next(numbers))
        for asked in (question, QUESTIONS[0]):  # the picture new, then known
            sloth.answer(picture, asked, max_new_tokens=SHORT_ANSWER)
    if engine is None:
        return WarmUp(time.perf_counter() - start, 0.0, 0, None)
    wanted = usual_columns(sloth, USUAL_NEW_TOKENS) if columns is None else columns
    sizes = engine.settings.slots
    for rows in reversed([size for size in sizes if size <= bucket(batch, sizes)]):  # the largest makes the room
        _make_steps(sloth, engine, rows, wanted)
    for count in [size for size in engine.settings.reading_rows if size <= batch]:
        for question in QUESTIONS:
            pairs = [(_picture(next(numbers)), question) for _ in range(count)]
            sloth.answer_batch(pairs, max_new_tokens=SHORT_ANSWER)
    sloth.pictures.clear()
    kept_in = _kept_in() if engine.compile_seconds else None
    return WarmUp(time.perf_counter() - start, engine.compile_seconds, engine.recorded, kept_in)


def _make_steps(sloth: FlashSloth, engine: Engine, rows: int, columns: int) -> None:
    """A step of `rows` rows at every width up to `columns`."""
    slots = engine.borrow(rows, columns)
    if slots is None:
        raise PromptError("another answer is being made: warm up before answering, or after")
    try:
        for width in range(engine.settings.width_step, slots.cache.columns + 1, engine.settings.width_step):
            slots.try_step(min(rows, slots.cache.rows), width, sloth.generator.chooser(Options()))
    finally:
        engine.give_back(rows)


def _picture(number: int) -> Image.Image:
    """One of its own."""
    return Image.new("RGB", (SIDE, SIDE), (number % 256, number // 256 % 256, 0))


def _kept_in() -> str:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return cache_dir()


__all__ = ["WarmUp", "warm_up"]
