"""The best evaluation of a stage so far, and whether it is time to stop.

In: what each evaluation found. Out: which step's checkpoint is the one to keep, and whether evaluations have gained
nothing for so long that the stage ends. It is kept in checkpoints, so a run that goes on counts on from where it was.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from flashsloth.training.recipe import StageRun

BEST_NAME = "best.json"
"""In a stage's folder: which step was best, by what, and whether the stage's model is that step's."""
SMALLER_IS_BETTER = {"loss": True, "right": False}


class ScoreError(ValueError):
    """A stage is to be judged by what its evaluations do not find."""


@dataclass
class Best:
    """What counts of the evaluations so far.

    Attributes:
        value: the best one's; None before the first.
        step: after which it was made.
        mark: the value that the next one has to gain on.
        waited: evaluations since one gained `least_gain` on the mark.
    """

    value: float | None = None
    step: int | None = None
    mark: float | None = None
    waited: int = 0

    def look(self, run: StageRun, metrics: dict[str, float], step: int) -> bool:
        """Take an evaluation in; returns whether it is the best.

        Args:
            run: the stage: by what it judges, and what is a gain.
            metrics: what the evaluation found.
            step: after which it was made.

        Raises:
            ScoreError: if what the stage judges by is not among it.
        """
        assert run.best_by is not None
        value = metrics.get(f"eval_{run.best_by}")
        if value is None:
            raise ScoreError(f"best_by is {run.best_by}, which the evaluations of stage {run.stage} do not find")
        sign = 1.0 if SMALLER_IS_BETTER[run.best_by] else -1.0
        is_best = self.value is None or sign * value < sign * self.value
        if is_best:
            self.value, self.step = value, step
        if self.mark is None or sign * (self.mark - value) > run.least_gain:
            self.mark, self.waited = value, 0
        else:
            self.waited += 1
        return is_best

    def is_over(self, run: StageRun) -> bool:
        """Whether the stage has waited for a gain for long enough."""
        return self.waited >= (math.inf if run.patience is None else run.patience)

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; `Best(**kept)` restores it."""
        return asdict(self)


__all__ = ["BEST_NAME", "Best", "ScoreError"]
