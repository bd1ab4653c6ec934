"""transformers' Trainer on data that workers of ours make (`data/workers.py`), which judges what it evaluates.

In: a stage and its data. Out: Trainer's loop, which before every step asks all processes whether each has its data and
none is to stop. If not so, all of them end together after the step that is done, with a checkpoint of it; so neither a
worker that was killed nor one that hangs loses what was learned.

The best evaluation's checkpoint is kept beside the last ones, and, where the recipe asks for it, its weights are taken
in place of the last step's; a stage ends early where evaluations have gained nothing for long. A held-out batch whose
loss is not a number ends the run and is named.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from flashsloth.errors import FlashSlothError
from flashsloth.training import distributed
from flashsloth.training.checkpoints import PREFIX, SaveError, changed, shares_read
from flashsloth.training.data.sample import DataError
from flashsloth.training.data.worker_process import picklable
from flashsloth.training.data.workers import DataWorkerError, StoppedWaiting, WorkerPool
from flashsloth.training.dataloader import BatchMaker, PooledLoader, step_loader
from flashsloth.training.guards import (
    all_tensors,
    check_finite,
    stop_at_held_out,
    stop_at_nothing_supervised,
    to_floats,
)
from flashsloth.training.interruptions import StopRequest
from flashsloth.training.metrics import BatchFacts, CountingCollator, Meter, take_facts
from flashsloth.training.recipe import StageRun
from flashsloth.training.resume import kept_random_state

logger = logging.getLogger(__name__)
BEST_NAME = "best.json"
"""In a stage's folder: which step was best, by what, and whether the stage's model is that step's."""
SMALLER_IS_BETTER = {"loss": True, "right": False}


class SuppliedTrainer(Trainer):
    """A trainer of a stage's data.

    Args:
        run: the stage, as the recipe says it.
        whole_model: the FlashSloth that `model` is, or is a part of.
        held_out_collator: makes batches of held-out samples, a row each; without it, the one for training does.
        options: Trainer's own.
    """

    def __init__(self, run: StageRun, *, whole_model: Any, held_out_collator: Any = None, **options: Any) -> None:
        collator = options.pop("data_collator")
        padding = whole_model.config.text_config.pad_token_id
        self._held_out_collator = CountingCollator(held_out_collator or collator, padding)
        super().__init__(data_collator=CountingCollator(collator, padding), **options)
        self.run, self.whole_model = run, whole_model
        self.meter, self.stop_request = Meter(), StopRequest()
        self.stopped_by = 0
        """The signal that ended the run, or 0."""
        self.saved_step = 0
        """The last step that there is a checkpoint of."""
        self._batches: list[BatchFacts] = []
        self._losses: list[torch.Tensor] = []
        self._pool: WorkerPool | None = None
        self._epoch: Iterator[Any] = iter(())
        """This process's own micro-batches that are still to come."""
        self._evaluation_due = False
        self._trouble: Exception | None = None
        """What kept the next step's data from coming."""

    def get_train_dataloader(self) -> Any:
        loader = step_loader(
            self.train_dataset,
            self.run,
            seed=self.args.seed,
            micro_batch_size=self.args.per_device_train_batch_size,
            processes=self.args.world_size,
            tokens_per_picture=self.whole_model.config.num_image_tokens,
        )
        self._sampler: Any = loader.batch_sampler
        self._pool = self._make_pool(BatchMaker(self.train_dataset, self.data_collator))
        return self.accelerator.prepare(loader)  # which Trainer counts by, and nobody reads

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        loader = super().get_eval_dataloader(eval_dataset)
        # who left alone would be waited for: see `prediction_step`
        make_pool = partial(self._make_pool, may_stop=distributed.count() == 1)
        loader.base_dataloader = PooledLoader(loader.base_dataloader, self._held_out_collator, make_pool)
        return loader

    def _make_pool(self, make: BatchMaker, may_stop: bool = True) -> WorkerPool:
        return WorkerPool(
            make,
            self.run.workers,
            patience=self.run.worker_timeout,
            pinned=self.args.device.type != "cpu",
            is_asked_to_stop=lambda: may_stop and self.stop_request.is_asked,
        )

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As Trainer's; nothing where a signal, or trouble with the data, put it off until the run goes on."""
        try:
            with kept_random_state():
                return super().evaluate(*args, **options)
        except StoppedWaiting:
            self.leave(max(distributed.all_gather(self.stop_request.signal_number)))
        except (DataWorkerError, DataError) as error:
            if not self.is_in_train or distributed.count() > 1:
                raise
            self._trouble = error
            self.leave(0)
        self._evaluation_due = True
        return {}

    def prediction_step(self, *args: Any, **options: Any) -> Any:
        if self.is_in_train and any(distributed.all_gather(self.stop_request.is_asked)):
            raise StoppedWaiting
        return super().prediction_step(*args, **options)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        self.meter.begin_step()
        trouble: Exception | None = None
        batches: list[Any] = []
        with kept_random_state():
            try:
                batches = self._take(num_batches)
            except StoppedWaiting:
                pass
            except Exception as error:  # raised once a checkpoint is written, by all processes
                trouble = error
        if self._is_to_leave(trouble):
            return [], None
        batches, count = super().get_batch_samples(iter(batches), len(batches), device)
        self.meter.has_data()
        self._batches, self._losses = [take_facts(batch) for batch in batches], []
        return batches, count

    def _take(self, count: int) -> list[Any]:
        from accelerate.utils import send_to_device  # an extra

        if self.stop_request.is_asked:
            raise StoppedWaiting
        batches = islice(self._epoch, count)
        return [send_to_device(batch, self.args.device, non_blocking=True) for batch in batches]

    def _is_to_leave(self, trouble: Exception | None) -> bool:
        """Before a step: whether any process was asked to stop, or has no data. If so, all end after the last step."""
        mine = [float(self.stop_request.is_asked), float(trouble is not None)]
        if not any(distributed.all_reduce_sum(mine, self.args.device)):
            return False
        answers = distributed.all_gather((self.stop_request.signal_number, trouble and picklable(trouble)))
        self._trouble = next((theirs for _, theirs in answers if theirs is not None), None)
        self.leave(max(signal for signal, _ in answers))
        return True

    def leave(self, signal_number: int) -> None:
        """End the run with what is learned so far."""
        self.stopped_by = signal_number
        self.control.should_training_stop = True
        self.control.should_save = self.state.global_step > self.saved_step

    def _raise_trouble(self) -> None:
        """Raise what kept data from coming; what was learned is saved."""
        if self._trouble is None:
            return
        step = self.state.global_step
        where = f"saved after step {step} in {self.checkpoint_of(step)}" if step else "before the first step"
        if isinstance(self._trouble, DataWorkerError):
            raise DataWorkerError(f"{self._trouble}; {where}: go on with --resume") from self._trouble
        logger.warning("the run ends, %s: go on with --resume", where)
        raise self._trouble

    def checkpoint_of(self, step: int) -> Path:
        """Where the checkpoint of a step stands."""
        return Path(self.args.output_dir) / f"{PREFIX}{step}"

    def train(self, resume_from_checkpoint: Any = None, **options: Any) -> Any:
        """As Trainer's."""
        try:
            done = super().train(resume_from_checkpoint=resume_from_checkpoint, **options)
        finally:
            self.stop_request.leave()
            if self._pool is not None:
                self._pool.close()
        self._raise_trouble()
        return done

    def _run_epoch(self, **loop: Any) -> None:
        is_last = self.state.global_step >= self.state.max_steps  # the checkpoint of the last step
        if self.stopped_by or self._trouble or is_last:
            self.control.should_training_stop = True
            return
        assert self._pool is not None
        is_resumed = loop["resume_from_checkpoint"] is not None and loop["epoch"] == loop["epochs_trained"]
        seen = loop["steps_trained_in_current_epoch"] if is_resumed else 0  # of this process
        self._sampler.set_epoch(loop["epoch"])
        processes = self._sampler.processes
        first = self.args.process_index + seen * processes
        self._epoch = self._pool.batches(islice(self._sampler, first, None, processes))
        super()._run_epoch(**loop)


class ScoreError(FlashSlothError, ValueError):
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
        if any(distributed.all_gather(bool(self._bad_held_out))):
            self.check_finite(all_tensors(self.model))
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
        if found[0] is not None and not math.isfinite(loss := to_floats([found[0].mean()], self.args.device)[0]):
            self._bad_held_out.append((facts, loss))
        return found

    def _run_epoch(self, **loop: Any) -> None:
        if self.best.is_over(self.run):
            self.control.should_training_stop = True
            return
        super()._run_epoch(**loop)

    def check_finite(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Refuse to keep infinity or NaN; see `guards.py`."""
        check_finite(
            tensors,
            step=self.state.global_step,
            folder=Path(self.args.output_dir),
            learning_rate=self.run.learning_rate,
            device=self.args.device,
        )
