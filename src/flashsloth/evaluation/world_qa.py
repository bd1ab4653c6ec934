"""How many questions about drawn pictures a model answers right.

In: a loaded model, and how many pictures. Out: a :class:`WorldReport`: for each kind of question the share of exact
answers, its 95 % interval, and what always giving that kind's commonest answer would reach.

The pictures are of the world's test split, which no training sees; the same seed gives the same pictures, and answers
are the likeliest ones, so a report can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flashsloth.evaluation.tallies import READING_ANY_CASE, EvaluationReport, PictureQuestions, ask_all
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.world import KINDS, World


@dataclass(kw_only=True)
class WorldReport(EvaluationReport):
    """What was found in a world of this seed and level, and of this share of what can't be told."""

    seed: int
    level: int
    unknown: float = 0.0


def evaluate_world(
    sloth: FlashSloth,
    *,
    count: int = 2000,
    seed: int = 0,
    level: int = 3,
    unknown: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> WorldReport:
    """Ask every question of the first `count` test pictures of a world.

    Args:
        sloth: the model.
        count: pictures; each has six to eight questions.
        seed: the world's.
        level: the world's, 0..3.
        unknown: the world's: the share of pictures that hold nothing with a name, and of questions that suppose what is
            not there.
        progress: called with the number of further pictures that are done.

    Raises:
        ValueError: if `count` is less than one, or there is no such level.
    """
    if count < 1:
        raise ValueError(f"count is {count}; expected at least one picture")
    started = time.perf_counter()
    world = World(seed=seed, split="test", level=level, unknown=unknown)
    samples = (world.sample(index) for index in range(count))
    tallies = ask_all(sloth, (PictureQuestions(sample.image, sample.questions) for sample in samples), progress)
    kinds, also = tallies.scores(KINDS), tallies.scores([READING_ANY_CASE])
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {"model": sloth.name, "pictures": count, "seconds": seconds, "kinds": kinds, "also": also}
    return WorldReport(**found, seed=seed, level=level, unknown=unknown)
