"""What a benchmark is: files that become items, answers that become counts, and sums that become a score.

    read(folder)  ->  Item ...            the files that people have, or the hub's Parquet
    score(group)  ->  Scored              the answers of items that count together
    total(sums)   ->  {name: figure}      of the counts, added up over all groups

`total` is plain arithmetic and works on numbers as on arrays [R]: an interval is the same sums over pictures drawn
again and again. A task is a file in `tasks/`; its settings stand in `settings.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flashsloth.errors import FlashSlothError
from flashsloth.evaluation.item import Item, Prediction, Scored
from flashsloth.evaluation.settings import TaskSettings


class EvaluationError(FlashSlothError, ValueError):
    """Data, predictions or settings that no score can be made of."""


class NoDataError(EvaluationError):
    """A folder holds none of a benchmark's files."""


@dataclass(frozen=True)
class JudgeRequest:
    """What a judge is asked about one answer, where rules cannot decide.

    Attributes:
        text: the whole question, word for word.
        max_tokens, temperature: of its reply.
        read: a judgement of a reply, which `Prediction.judgements` keeps; None where the reply is none.
    """

    text: str
    max_tokens: int
    temperature: float
    read: Callable[[str], str | None]


class Task(ABC):
    """A benchmark.

    Args:
        settings: its row of the table, for a preset.

    Attributes:
        files: the layout of its publishers, for an error that names it; empty where they publish Parquet alone.
        columns: of the hub's Parquet files; any Parquet file that has them is taken.
        truths: what a prediction's truth must hold to be scored.
        scorers: the rules that it knows, by the names that `settings.scorer` has; empty where they are not checked.

    Raises:
        EvaluationError: for rules that it does not know.
    """

    files: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    truths: ClassVar[tuple[tuple[str, type], ...]] = ()
    scorers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: TaskSettings) -> None:
        if self.scorers and settings.scorer not in self.scorers:
            expected = ", ".join(map(repr, self.scorers))
            raise EvaluationError(f"{settings.title} cannot be scored by {settings.scorer!r}; expected {expected}")
        self.settings = settings

    @abstractmethod
    def read(self, folder: Path) -> Iterator[Item]:
        """The items of a folder, in the data's order.

        Raises:
            EvaluationError: where neither layout is there, or a file is not what its name says.
        """

    @abstractmethod
    def score(self, group: Sequence[Prediction]) -> Scored:
        """What the answers of a group add."""

    @abstractmethod
    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Figures, in the task's own unit, of counts added up; the one of `settings.metric` is the score."""

    def judge_request(self, prediction: Prediction) -> JudgeRequest | None:
        """What to ask a judge, whether or not it was asked before; None where rules decide."""
        del prediction
        return None

    def score_all(self, groups: Sequence[Sequence[Prediction]]) -> list[Scored]:
        """Every group's counts; a task that draws where nothing was understood overrides this."""
        return [self.score(group) for group in groups]


def only(group: Sequence[Prediction]) -> Prediction:
    """The prediction of a group that holds just one.

    Raises:
        EvaluationError: where there are more.
    """
    if len(group) != 1:
        raise EvaluationError(f"{group[0].id!r} has {len(group)} answers, expected one: the predictions are mixed up")
    return group[0]


def known(one: Prediction, name: str, expected: Sequence[str]) -> str:
    """A text of a prediction's truth that is one of some.

    Raises:
        EvaluationError: where it is another, which no figure would count.
    """
    value = one.truth[name]
    if value not in expected:
        raise EvaluationError(f"the truth of {one.id!r} has {name} {value!r:.80}, expected {', '.join(expected)}")
    return str(value)


def share(part: Any, whole: Any) -> Any:
    """Percent; 0 of nothing."""
    return 100 * part / (whole + (whole == 0))
