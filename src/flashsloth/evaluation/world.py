"""How many questions about drawn pictures a model answers right.

In: a loaded model, and how many pictures. Out: a :class:`WorldReport`: for each kind of question the share of exact
answers, its 95 % interval, and what always giving that kind's commonest answer would reach.

The pictures are of the world's test split, which no training sees; the same seed gives the same pictures, and answers
are the likeliest ones, so a report can be repeated.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from flashsloth.inference import FlashSloth
from flashsloth.world import KINDS, Question, World

READING = "reading"
"""The kind whose answers are words as they are written: their case counts."""
READING_ANY_CASE = "reading, any case"
MAX_NEW_TOKENS = 32
"""Longer than any true answer."""
NORMAL_95 = 1.959964
"""Standard deviations of a normal distribution on either side of the middle 95 %."""
SYNONYMS = {"grey": "gray"}
_ARTICLE = re.compile(r"^(a|an|the)\s+(?=\S)")
_ENDS = " \t\n.!?\"'"


@dataclass
class Score:
    """One row of a report.

    Attributes:
        name: a kind of question, or what else is counted.
        asked: how many questions.
        right: how many were answered exactly.
        majority: the share that always giving the commonest true answer would get right.
    """

    name: str
    asked: int
    right: int
    majority: float

    @property
    def share(self) -> float:
        """Right answers of all; 0 of none."""
        return self.right / self.asked if self.asked else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        return wilson_interval(self.right, self.asked)

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "share": self.share, "interval": list(self.interval)}


@dataclass
class WorldReport:
    """What was found.

    Attributes:
        model: its name.
        seed, level: of the world.
        pictures: how many were shown.
        seconds: how long it took, drawing included.
        kinds: a row for each kind of question that was asked, in the world's order.
        also: rows that count some of the same questions otherwise.
        total: all questions.
    """

    model: str
    seed: int
    level: int
    pictures: int
    seconds: float
    kinds: list[Score]
    also: list[Score]
    total: Score

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        plain = {name: getattr(self, name) for name in ("model", "seed", "level", "pictures", "seconds")}
        rows = {name: [score.to_dict() for score in getattr(self, name)] for name in ("kinds", "also")}
        return {**plain, **rows, "total": self.total.to_dict()}


@dataclass
class _Tally:
    """Counts of one row while it grows."""

    right: int = 0
    truths: Counter[str] = field(default_factory=Counter)

    def add(self, truth: str, *, right: bool) -> None:
        self.right += right
        self.truths[truth] += 1

    def score(self, name: str) -> Score:
        asked = self.truths.total()
        commonest = max(self.truths.values(), default=0)
        return Score(name, asked, self.right, commonest / asked if asked else 0.0)


def evaluate_world(
    sloth: FlashSloth,
    *,
    count: int = 2000,
    seed: int = 0,
    level: int = 3,
    progress: Callable[[int], None] | None = None,
) -> WorldReport:
    """Ask every question of the first `count` test pictures of a world.

    Args:
        sloth: the model.
        count: pictures; each has six to eight questions.
        seed: the world's.
        level: the world's, 0..3.
        progress: called with the number of further pictures that are done.

    Raises:
        ValueError: if `count` is less than one, or there is no such level.
    """
    if count < 1:
        raise ValueError(f"count is {count}; expected at least one picture")
    started = time.perf_counter()
    world = World(seed=seed, split="test", level=level)
    asked: list[tuple[int, Question]] = []  # grows as the pairs are read
    rows: dict[str, _Tally] = {}
    left: Counter[int] = Counter()
    for place, answer in sloth.answer_as_ready(_pairs(world, count, asked, left), max_new_tokens=MAX_NEW_TOKENS):
        picture, question = asked[place]
        _count(rows, question, answer)
        left[picture] -= 1
        if progress is not None and not left[picture]:
            progress(1)
    kinds = [rows[kind].score(kind) for kind in KINDS if kind in rows]
    also = [rows[READING_ANY_CASE].score(READING_ANY_CASE)] if READING_ANY_CASE in rows else []
    questions = sum(score.asked for score in kinds)
    total = Score(
        "all",
        questions,
        sum(score.right for score in kinds),
        sum(score.majority * score.asked for score in kinds) / questions,
    )
    return WorldReport(sloth.name, seed, level, count, time.perf_counter() - started, kinds, also, total)


def normalised(answer: str) -> str:
    """An answer without what does not count: case, white space, an article before it, punctuation around it."""
    words = " ".join(answer.casefold().split()).strip(_ENDS)
    bare = _ARTICLE.sub("", words)
    return " ".join(SYNONYMS.get(word, word) for word in bare.split())


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer is the true one; of what is written, letter by letter and case by case."""
    if question.kind == READING:
        return answer.strip(_ENDS) == question.answer.strip(_ENDS)
    return normalised(answer) == normalised(question.answer)


def wilson_interval(right: int, asked: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) where nothing was asked."""
    if not asked:
        return 0.0, 1.0
    share, squared = right / asked, NORMAL_95**2
    middle = (share + squared / (2 * asked)) / (1 + squared / asked)
    half = NORMAL_95 / (1 + squared / asked) * math.sqrt(share * (1 - share) / asked + squared / (4 * asked**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _pairs(
    world: World, count: int, asked: list[tuple[int, Question]], left: Counter[int]
) -> Iterator[tuple[Image.Image, str]]:
    """Pictures and questions as they are wanted; each question is noted in `asked`, each picture's number in `left`."""
    for index in range(count):
        sample = world.sample(index)
        left[index] = len(sample.questions)
        for question in sample.questions:
            asked.append((index, question))
            yield sample.image, question.question


def _count(rows: dict[str, _Tally], question: Question, answer: str) -> None:
    truth = question.answer if question.kind == READING else normalised(question.answer)
    rows.setdefault(question.kind, _Tally()).add(truth, right=is_right(question, answer))
    if question.kind == READING:
        any_case = answer.strip(_ENDS).casefold() == question.answer.strip(_ENDS).casefold()
        rows.setdefault(READING_ANY_CASE, _Tally()).add(truth.casefold(), right=any_case)
