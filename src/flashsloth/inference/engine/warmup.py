"""Warming up: paying ahead for what is paid once, so that the first answer is as quick as the others.

In: a FlashSloth, and how many answers at once. Out: what it took.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from flashsloth.inference.sampling_params import whole_number

if TYPE_CHECKING:
    from flashsloth.inference.pipeline import FlashSloth

SIDE = 32
"""Of the pictures drawn to warm up, in pixels: views have one size whatever the picture's."""
SHORT_ANSWER, USUAL_TOKENS = 2, 512
QUESTIONS = ("What is this?", "What is written on the sign to the left of the person in the middle of the picture?")
"""A short one and one of usual length."""


@dataclass(frozen=True)
class WarmUp:
    """What warming up took.

    Attributes:
        seconds: in all.
        recorded: passes that are recorded now, for as long as the process lives.
    """

    seconds: float
    recorded: int = 0


def warm_up(sloth: FlashSloth, batch: int = 1) -> WarmUp:
    """Record what a load needs, where passes are recorded, and answer questions about drawn pictures.

    They are answered one at a time and `batch` at once. The picture cache is cleared.

    Raises:
        PromptError: for a batch that cannot be.
    """
    most = whole_number("batch", batch, 1)
    start = time.perf_counter()
    prompts = [sloth.request(_picture(0), question).prompt for question in QUESTIONS]
    columns = max(map(len, prompts)) + USUAL_TOKENS
    recorded = sum(sloth.engine_thread.run(lambda engine: engine.runner.warm_up(most, columns, prompts)))
    drawn = iter(range(1 << 24))
    for question in QUESTIONS:
        picture = _picture(next(drawn))
        for asked in (question, QUESTIONS[0]):  # the picture new, then known
            sloth.answer(picture, asked, max_tokens=SHORT_ANSWER)
    if most > 1:
        pairs = [(_picture(next(drawn)), QUESTIONS[number % 2]) for number in range(most)]
        sloth.answer_batch(pairs, max_tokens=SHORT_ANSWER)
    sloth.pictures.clear()
    return WarmUp(time.perf_counter() - start, recorded)


def _picture(number: int) -> Image.Image:
    """One of its own."""
    return Image.new("RGB", (SIDE, SIDE), (number % 256, number // 256 % 256, number >> 16))
