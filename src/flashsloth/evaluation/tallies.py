"""Asks a model all questions of many pictures, as fast as it can, and counts the right answers.

In: a loaded model and pictures with their questions. Out: :class:`Tallies`, whose :class:`Score` rows say how many
answers were right and how sure that is: one for each kind of question, and further ones where a picture asks for them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flashsloth.inference.pipeline import FlashSloth
from flashsloth.world import Question

READING, UNKNOWN = "reading", "unknown"
"""The kinds whose answers are words as they are written, where case counts, and that nothing can be told."""
READING_ANY_CASE = "reading, any case"
NORMAL_95 = 1.959964
"""Standard deviations of a normal distribution on either side of the middle 95 %."""
SYNONYMS = {"grey": "gray"}
_ARTICLE = re.compile(r"^(a|an|the)\s+(?=\S)")
CANNOT_TELL = (
    "i can't tell", "i cannot tell", "can't tell", "cannot tell", "i don't know", "i do not know", "unknown",
    "not in the picture", "it is not in the picture", "there is none", "none",
)  # fmt: skip
"""What answers begin with that say that it can't be told, whatever the model's manner."""
_ENDS = " \t\n.!?\"'"
MAX_TOKENS = 32
"""Longer than any true answer."""


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
class Tally:
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


class Tallies:
    """All rows of a report while they grow."""

    def __init__(self) -> None:
        self.rows: dict[str, Tally] = {}

    def add(self, row: str, question: Question, answer: str) -> None:
        """Count an answer in a row."""
        truth = question.answer if question.kind == READING else normalised(question.answer)
        self.rows.setdefault(row, Tally()).add(truth, right=is_right(question, answer))

    def add_any_case(self, question: Question, answer: str) -> None:
        """Count what was read once more, its case aside."""
        right = answer.strip(_ENDS).casefold() == question.answer.strip(_ENDS).casefold()
        self.rows.setdefault(READING_ANY_CASE, Tally()).add(question.answer.casefold(), right=right)

    def scores(self, names: Sequence[str]) -> list[Score]:
        """The rows of these names that there are, in this order."""
        return [self.rows[name].score(name) for name in names if name in self.rows]


@dataclass(kw_only=True)
class EvaluationReport:
    """What was found.

    Attributes:
        model: its name.
        pictures: how many were shown.
        seconds: how long it took, drawing included.
        kinds: a row for each kind of question that was asked.
        also: rows that count some of the same questions otherwise, such as what was read without regard to case.
        total: all questions.
    """

    model: str
    pictures: int
    seconds: float
    kinds: list[Score]
    also: list[Score]

    @cached_property
    def total(self) -> Score:
        return total_of(self.kinds)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        rows = {name: [score.to_dict() for score in getattr(self, name)] for name in ("kinds", "also")}
        return {**vars(self), **rows, "total": self.total.to_dict()}


def total_of(scores: Sequence[Score]) -> Score:
    """All questions of some rows in one; the commonest answer is each row's own."""
    asked = sum(score.asked for score in scores)
    majority = sum(score.majority * score.asked for score in scores) / asked if asked else 0.0
    return Score("all", asked, sum(score.right for score in scores), majority)


def normalised(answer: str) -> str:
    """An answer without what does not count: case, white space, an article before it, punctuation around it."""
    words = " ".join(answer.casefold().split()).strip(_ENDS)
    bare = _ARTICLE.sub("", words)
    return " ".join(SYNONYMS.get(word, word) for word in bare.split())


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer is the true one; of what is written, letter by letter and case by case."""
    if question.kind == READING:
        return answer.strip(_ENDS) == question.answer.strip(_ENDS)
    if question.kind == UNKNOWN:
        return normalised(answer.replace("\u2019", "'")).startswith(CANNOT_TELL)
    return normalised(answer) == normalised(question.answer)


def wilson_interval(right: int, asked: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) where nothing was asked."""
    if not asked:
        return 0.0, 1.0
    share, squared = right / asked, NORMAL_95**2
    middle = (share + squared / (2 * asked)) / (1 + squared / asked)
    half = NORMAL_95 / (1 + squared / asked) * math.sqrt(share * (1 - share) / asked + squared / (4 * asked**2))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class PictureQuestions:
    """A picture with what is asked about it.

    Attributes:
        image: whatever the model takes for a picture.
        questions: with their true answers; one at least.
        group: a further row in which its questions are counted, such as who drew it; None for none.
    """

    image: Any
    questions: Sequence[Question]
    group: str | None = None


def ask_all(
    sloth: FlashSloth, pictures: Iterable[PictureQuestions], progress: Callable[[int], None] | None = None
) -> Tallies:
    """Ask every question of every picture; pictures are taken as they are needed.

    Args:
        sloth: the model.
        pictures: what to ask.
        progress: called with the number of further pictures that are done.
    """
    asked: list[tuple[PictureQuestions, Question]] = []  # grows as the pairs are read
    left: dict[int, int] = {}
    tallies = Tallies()

    def pairs() -> Iterator[tuple[Any, str]]:
        for picture in pictures:
            left[id(picture)] = len(picture.questions)
            for question in picture.questions:
                asked.append((picture, question))
                yield picture.image, question.question

    for place, answer in sloth.answer_as_ready(pairs(), max_tokens=MAX_TOKENS):
        picture, question = asked[place]
        tallies.add(question.kind, question, answer)
        if question.kind == READING:
            tallies.add_any_case(question, answer)
        if picture.group is not None:
            tallies.add(picture.group, question, answer)
        left[id(picture)] -= 1
        if progress is not None and not left[id(picture)]:
            progress(1)
    return tallies
