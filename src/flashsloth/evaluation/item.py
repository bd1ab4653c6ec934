"""One thing that a benchmark asks, and what a model said to it.

In: what a task reads of the files that people have. Out: :class:`Item`, and with an answer :class:`Prediction`, which
is a line of `predictions.jsonl`: scoring needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashsloth.evaluation.settings import TaskSettings

Picture = Path | Callable[[], bytes]
"""A file, or what reads an encoded picture out of a larger file when it is needed."""


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique in its task, and the same in every layout of the data.
        prompt: what the model is asked, word for word.
        pictures: shown with it, in order.
        truth: what scoring needs, as JSON holds it.
        group: items that only count together share it (MMBench's turned questions, MME's pairs).
        picture: items about one picture share it: they go to one process, and are drawn together for intervals.
        parts: where pictures stand between texts, those texts, and None for the next picture; empty where all pictures
            stand before `prompt`.
    """

    id: str
    prompt: str
    pictures: tuple[Picture, ...]
    truth: dict[str, Any]
    group: str
    picture: str
    parts: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """An item with its answer.

    Attributes:
        id, prompt, truth, group, picture: the item's.
        answer: the model's text, not stripped.
        tokens: it was made of; None where a server did not say.
        finish_reason: why it ended.
        judgements: what a judge said of it, as the task reads it; several where it was asked several times.
        place: among the items that were asked, in the data's order.
    """

    id: str
    prompt: str
    truth: dict[str, Any]
    group: str
    picture: str
    answer: str
    tokens: int | None = None
    finish_reason: str = "stop"
    judgements: tuple[str, ...] = ()
    place: int = 0


@dataclass(frozen=True)
class Scored:
    """What a group of items adds to a task's score.

    Attributes:
        predictions: of the group.
        counts: name -> what is added up; `Task.total` makes the score of the sums.
        value: 0 (wrong) to 1 (right), for comparing two runs; None where nobody has judged it.
        best, worst: counts if it were judged right, and wrong; None where it was judged.
        said: what was understood of the answer, for people who read results.
    """

    predictions: tuple[Prediction, ...]
    counts: dict[str, float]
    value: float | None
    best: dict[str, float] | None = None
    worst: dict[str, float] | None = None
    said: str = ""


@dataclass
class ReadData:
    """What a task found: the settings it was read with, and the items."""

    settings: TaskSettings
    items: list[Item]
    files: list[Path] = field(default_factory=list)
