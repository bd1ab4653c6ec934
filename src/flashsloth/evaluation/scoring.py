"""From predictions to a task's figures, with 95 % intervals.

In: predictions, and the task. Out: a :class:`Summary`. An interval is a bootstrap over pictures: they are drawn with
replacement, as many as there are, a thousand times, and the 2.5th and 97.5th percentile of each figure are taken.

Legend: P pictures, C counts, R draws.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flashsloth.evaluation.item import Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, Task

DRAWS, SEED = 1000, 0
LOW, HIGH = 2.5, 97.5
"""Percentiles."""


@dataclass(frozen=True)
class Figure:
    """A figure of a task, in the task's unit.

    Attributes:
        name: what it is.
        value: of the answers; the lowest there can be while some are unjudged.
        low, high: its 95 % interval; where answers are unjudged, from all of them wrong to all of them right.
    """

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What a task's predictions score.

    Attributes:
        task, preset: which.
        items, groups, pictures: how many were counted.
        figures: all of them; the first is the score.
        unjudged: groups that nobody has judged.
        judged: groups that a judge said something of.
        scorer: by which rules.
    """

    task: str
    preset: str
    items: int
    groups: int
    pictures: int
    figures: tuple[Figure, ...]
    unjudged: int
    judged: int = 0
    scorer: str = ""

    @property
    def score(self) -> Figure:
        """The task's own figure."""
        return self.figures[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return asdict(self)


def score(task: Task, predictions: Sequence[Prediction]) -> tuple[Summary, list[Scored]]:
    """Score predictions.

    Raises:
        EvaluationError: without any; where one lacks what the task needs.
    """
    if not predictions:
        raise EvaluationError(f"there are no answers to {task.settings.title}: nothing can be scored")
    grouped: dict[str, list[Prediction]] = defaultdict(list)
    for one in predictions:
        _check_truth(task, one)
        grouped[one.group].append(one)
    scored = task.score_all(list(grouped.values()))
    unjudged = sum(one.value is None for one in scored)
    worst = _figures(task, [one.counts if one.worst is None else one.worst for one in scored], scored)
    best = worst
    if unjudged:
        best = _figures(task, [one.counts if one.best is None else one.best for one in scored], scored)
    if task.settings.metric not in worst:
        raise EvaluationError(
            f"{task.settings.title} has no figure {task.settings.metric!r}, which should be its score; expected one of "
            f"{', '.join(worst)}"
        )
    names = sorted(worst, key=lambda name: name != task.settings.metric)  # the score first, others as they came
    figures = tuple(Figure(name, worst[name][0], worst[name][1], best[name][2]) for name in names)
    pictures = len({one.predictions[0].picture for one in scored})
    settings = task.settings
    judged = sum(any(one.judgements for one in group.predictions) for group in scored)
    counted = len(predictions), len(scored), pictures
    return Summary(settings.task, settings.preset, *counted, figures, unjudged, judged, settings.scorer), scored


def _check_truth(task: Task, one: Prediction) -> None:
    for name, kind in task.truths:
        if not isinstance(one.truth.get(name), kind):
            raise EvaluationError(
                f"the truth of {one.id!r} has {name} {one.truth.get(name)!r}, expected {kind.__name__}: are these "
                f"answers to {task.settings.title}?"
            )


def _figures(
    task: Task, counts: Iterable[dict[str, float]], scored: Sequence[Scored]
) -> dict[str, tuple[float, float, float]]:
    """(value, low, high) of each figure."""
    found = {}
    for name, (value, drawn) in drawn_figures(task, counts, scored).items():
        low, high = np.percentile(drawn, (LOW, HIGH))
        found[name] = value, float(low), float(high)
    return found


def drawn_figures(
    task: Task, counts: Iterable[dict[str, float]], scored: Sequence[Scored]
) -> dict[str, tuple[float, np.ndarray]]:
    """(value, values of the draws float64 [R]) of each figure; the same pictures are drawn for the same `scored`."""
    by_picture: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one, added in zip(scored, counts, strict=True):
        of_picture = by_picture[one.predictions[0].picture]  # made where nothing is added, too: it may be drawn
        for name, number in added.items():
            of_picture[name] += number
    names = sorted({name for added in by_picture.values() for name in added})
    rows = [by_picture[picture] for picture in sorted(by_picture)]  # the same draws in whatever order answers came
    table = np.array([[added.get(name, 0.0) for name in names] for added in rows])  # [P, C]
    sums = table.sum(axis=0)
    values = task.total(defaultdict(float, zip(names, sums.tolist(), strict=True)))
    generator = np.random.default_rng(SEED)
    drawn = np.empty((DRAWS, len(names)))  # [R, C]
    for draw in range(DRAWS):
        drawn[draw] = np.bincount(generator.integers(len(table), size=len(table)), minlength=len(table)) @ table
    spread = task.total(defaultdict(lambda: np.zeros(DRAWS), zip(names, drawn.T, strict=True)))
    return {name: (float(value), np.broadcast_to(spread[name], DRAWS)) for name, value in values.items()}
