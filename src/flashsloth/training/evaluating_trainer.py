"""transformers' Trainer, which judges what it evaluates: the best step's checkpoint is kept, and a stage may end early.

In: a stage with held-out data. Out: :class:`Best` of its evaluations (`best.py`), the best step's checkpoint beside the
last ones, and, where the recipe asks for it, its weights in place of the last step's. A held-out batch whose loss is no
number ends the run and is named.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from flashsloth.training import ranks
from flashsloth.training.batch_facts import BatchFacts, take_facts
from flashsloth.training.best import Best
from flashsloth.training.checkpoints import SaveError, shares_read
from flashsloth.training.guards import plain_numbers, stop_at_held_out, stop_at_nothing_supervised
from flashsloth.training.manifest import changed
from flashsloth.training.recipe import StageRun
from flashsloth.training.soundness import all_tensors, check_numbers
from flashsloth.training.supplied_trainer import SuppliedTrainer

logger = logging.getLogger(__name__)


class EvaluatingTrainer(SuppliedTrainer):
    """A trainer of a stage's data, with what it holds out.

    Args:
        run, whole_model, options: as SuppliedTrainer's.
    """

    def __init__(self, run: StageRun, *, whole_model: Any, **options: Any) -> None:
        super().__init__(run, whole_model=whole_model, **options)
        self.best = Best()
        self._checkpoint: Path | None = None
        self._bad_held_out: list[tuple[BatchFacts, float]] = []

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        self._bad_held_out = []
        metrics = super().evaluate(*args, **options)
        if any(ranks.gathered(bool(self._bad_held_out))):
            self.check_numbers(all_tensors(self.model))
            stop_at_held_out(self._bad_held_out, self.state.global_step)
        if metrics and self.run.best_by is not None:
            self._judge(metrics)
        return metrics

    def _judge(self, metrics: dict[str, float]) -> None:
        """Keep what is the best so far, and end where nothing has been gained for long."""
        step = self.state.global_step
        if self.best.look(self.run, metrics, step):
            logger.info("the best so far by %s", self.run.best_by)
            self.control.should_save |= step > self.saved_step
        if self.best.is_over(self.run):
            logger.info("stopping after step %d: nothing gained in %d evaluations", step, self.best.waited)
            self.control.should_training_stop = True
            self.control.should_save |= step > self.saved_step

    def best_to_json(self) -> dict[str, Any]:
        """Which step was best so far, for the stage's record."""
        best = self.best
        return {
            "by": self.run.best_by,
            "value": best.value,
            "step": best.step,
            "checkpoint": None if best.step is None else str(self.checkpoint_of(best.step)),
            "evaluations_without_gain": best.waited,
            "stopped_early": best.is_over(self.run),
            "leaves": self.run.leave,
        }

    def leave_best(self) -> None:
        """After the last step: take the best one's weights, where the recipe asks for them.

        Raises:
            SaveError: if its checkpoint is not what was written.
        """
        step = self.best.step
        if self.run.leave != "best" or step is None or step == self.state.global_step:
            return
        self._checkpoint = self.checkpoint_of(step)
        if fault := changed(self._checkpoint):
            raise SaveError(f"{self._checkpoint}, the best, is not whole ({fault}): put it back, or set leave: last")
        self.state.best_model_checkpoint = str(self._checkpoint)
        with shares_read(self._checkpoint):
            self._load_best_model()

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        facts = take_facts(inputs)
        if facts.supervised == 0:
            stop_at_nothing_supervised([facts], None)
        if facts.supervised is not None:
            inputs = {**inputs, "skip_logits": True}  # the most likely tokens are all that is scored
        found = super().prediction_step(model, inputs, *args, **options)
        if found[0] is not None and not math.isfinite(loss := plain_numbers([found[0].mean()], self.args.device)[0]):
            self._bad_held_out.append((facts, loss))
        return found

    def _run_epoch(self, **loop: Any) -> None:
        if self.best.is_over(self.run):
            self.control.should_training_stop = True
            return
        super()._run_epoch(**loop)

    def check_numbers(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Refuse to keep infinity or NaN; see `soundness.py`."""
        check_numbers(
            tensors,
            step=self.state.global_step,
            folder=Path(self.args.output_dir),
            learning_rate=self.run.settings.learning_rate,
            device=self.args.device,
        )


__all__ = ["EvaluatingTrainer"]
