"""Two runs of one benchmark on the same questions: which is better, by how much, and where they part.

In: two files of predictions. Out: a :class:`Comparison`: each figure of both with its 95 % interval, the differences
with theirs, and every group of questions with what became of it. A difference's interval is paired: the same pictures
are drawn for both runs, so what makes a picture hard for both moves neither end.

Legend: R draws.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from flashsloth.evaluation.item import Prediction, Scored
from flashsloth.evaluation.predictions import predictions_file, read_files
from flashsloth.evaluation.scoring import HIGH, LOW, drawn_figures
from flashsloth.evaluation.settings import TaskSettings
from flashsloth.evaluation.task import EvaluationError, Task
from flashsloth.evaluation.tasks import make_task

Outcome = Literal["lost", "won", "changed", "same"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""Of the second run: worse than the first, better, as good with another answer, the same answer."""
LOST, WON, CHANGED, SAME = OUTCOMES
LABELS: dict[Outcome, str] = {LOST: "lost", WON: "won", CHANGED: "other answer, same score", SAME: "same answer"}
ASKED = ("prompt", "truth", "group", "picture")
"""What must be equal in both runs."""
SHOWN = 60
"""Characters of a value that an error quotes."""


@dataclass(frozen=True)
class Run:
    """A file of predictions.

    Attributes:
        path: the file.
        name: what answered, as a person calls it beside the other.
        model: what the header says of it.
    """

    path: Path
    name: str
    model: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """A figure of both runs, in the task's unit.

    Attributes:
        name: what it is.
        before, after: of the first and the second run.
        before_interval, after_interval: their 95 % intervals.
        value: the second less the first.
        low, high: its 95 % interval.
    """

    name: str
    before: float
    after: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    value: float
    low: float
    high: float

    @property
    def may_be_chance(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Pair:
    """A group of questions that count together, as both runs answered it."""

    before: Scored
    after: Scored

    @property
    def outcome(self) -> Outcome:
        """What became of it; both are judged."""
        first, second = self.before.value, self.after.value
        assert first is not None
        assert second is not None
        if first != second:
            return LOST if second < first else WON
        answers = ([one.answer.strip() for one in side.predictions] for side in (self.before, self.after))
        return SAME if next(answers) == next(answers) else CHANGED

    def to_dict(self) -> dict[str, Any]:
        """What changed, as JSON holds it."""
        sides = {"before": self.before, "after": self.after}
        found: dict[str, Any] = {"ids": [one.id for one in self.before.predictions], "outcome": self.outcome}
        for name, side in sides.items():
            found[name] = {"value": side.value, "answers": [one.answer for one in side.predictions]}
        return found


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common, and what not.

    Attributes:
        settings: of the benchmark.
        before, after: the runs.
        differences: of each figure; the first is the score.
        pairs: every group that is judged in both, in the data's order.
        unjudged: groups that nobody has judged in one of them, which count nowhere here.
    """

    settings: TaskSettings
    before: Run
    after: Run
    differences: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    unjudged: int

    @property
    def score(self) -> Difference:
        """The task's own figure."""
        return self.differences[0]

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many groups had which outcome."""
        found = Counter(pair.outcome for pair in self.pairs)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    @property
    def pictures(self) -> int:
        """That were asked about."""
        return len({pair.before.predictions[0].picture for pair in self.pairs})

    @property
    def ordered(self) -> list[Pair]:
        """All pairs, those that changed first: lost, won, other answers."""
        return sorted(self.pairs, key=lambda pair: OUTCOMES.index(pair.outcome))

    def to_dict(self) -> dict[str, Any]:
        """Everything but what stayed the same, as JSON holds it."""
        runs = {"before": self.before, "after": self.after}
        return {
            "task": self.settings.task,
            "preset": self.settings.preset,
            **{name: {"file": str(run.path), "name": run.name, "model": run.model} for name, run in runs.items()},
            "figures": [{**vars(one), "may_be_chance": one.may_be_chance} for one in self.differences],
            "questions": sum(len(pair.before.predictions) for pair in self.pairs),
            "groups": len(self.pairs),
            "pictures": self.pictures,
            "counts": {**self.counts, "unjudged": self.unjudged},
            "changed": [pair.to_dict() for pair in self.pairs if pair.outcome != SAME],
        }


def compare(before: Path, after: Path) -> Comparison:
    """Compare two runs.

    Args:
        before, after: files of predictions, or folders that hold one.

    Raises:
        EvaluationError: where they are not of the same benchmark, rules, questions and truths; where nothing is judged.
    """
    paths = [predictions_file(one) for one in (before, after)]
    (header, first, _), (other, second, _) = (read_files([path]) for path in paths)
    for name in ("task", "preset"):
        if header[name] != other[name]:
            raise EvaluationError(
                f"{paths[0]} is of {name} {header[name]} and {paths[1]} of {other[name]}: expected the same of both"
            )
    second = _same_questions(paths, first, second)
    task = make_task(header["task"], header["preset"])
    scored = [task.score_all(_grouped(predictions)) for predictions in (first, second)]
    pairs = [Pair(*sides) for sides in zip(*scored, strict=True)]
    judged = tuple(pair for pair in pairs if pair.before.value is not None and pair.after.value is not None)
    if not judged:
        raise EvaluationError(f"nobody has judged an answer of both {paths[0]} and {paths[1]}: nothing can be compared")
    models = [one["model"] if isinstance(one.get("model"), dict) else {} for one in (header, other)]
    names = _names(paths, *models)
    old, new = (Run(*facts) for facts in zip(paths, names, models, strict=True))
    return Comparison(task.settings, old, new, _differences(task, judged), judged, len(pairs) - len(judged))


def _same_questions(paths: Sequence[Path], first: Sequence[Prediction], second: Sequence[Prediction]) -> list[Any]:
    """The second run's predictions in the first one's order.

    Raises:
        EvaluationError: naming a question that only one of them has, or what differs of one that both have.
    """
    by_id = {one.id: one for one in second}
    for path, other, here, there in ((paths[0], paths[1], first, second), (paths[1], paths[0], second, first)):
        known = {one.id for one in there}
        if only := [one.id for one in here if one.id not in known]:
            raise EvaluationError(
                f"{path} has {len(only):,} of {len(here):,} questions that {other} lacks, such as {_quoted(only[0])}: "
                f"expected answers to the same questions"
            )
    for one in first:
        for name in ASKED:
            found, expected = getattr(by_id[one.id], name), getattr(one, name)
            if found != expected:
                raise EvaluationError(
                    f"{name} of {_quoted(one.id)} is {_quoted(expected)} in {paths[0]} and {_quoted(found)} in "
                    f"{paths[1]}: expected the same of both"
                )
    return [by_id[one.id] for one in first]


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _grouped(predictions: Sequence[Prediction]) -> list[list[Prediction]]:
    grouped: dict[str, list[Prediction]] = defaultdict(list)
    for one in predictions:
        grouped[one.group].append(one)
    return list(grouped.values())


def _differences(task: Task, pairs: Sequence[Pair]) -> tuple[Difference, ...]:
    sides = [[pair.before for pair in pairs], [pair.after for pair in pairs]]
    first, second = (drawn_figures(task, [one.counts for one in side], side) for side in sides)
    found = []
    for name in sorted(
        first.keys() & second.keys(), key=lambda name: (name != task.settings.metric, [*first].index(name))
    ):
        (before, drawn_before), (after, drawn_after) = first[name], second[name]
        low, high = _interval(drawn_after - drawn_before)
        intervals = _interval(drawn_before), _interval(drawn_after)
        found.append(Difference(name, before, after, intervals[0], intervals[1], after - before, low, high))
    return tuple(found)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, (LOW, HIGH))
    return float(low), float(high)


def _names(paths: Sequence[Path], first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What to call the runs: by their models, what differs of these, or their files."""
    names = [str(model.get("name") or path.parent.name) for path, model in zip(paths, (first, second), strict=True)]
    if names[0] != names[1]:
        return names
    unlike = [key for key in sorted({*first, *second} - {"digest"}) if first.get(key) != second.get(key)]
    if not unlike:
        return [str(path) for path in paths]
    facts = [", ".join(f"{key} {model.get(key) or 'none'}" for key in unlike) for model in (first, second)]
    return [f"{name} ({fact})" for name, fact in zip(names, facts, strict=True)]
