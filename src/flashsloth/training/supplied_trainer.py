"""transformers' Trainer on data that workers of ours make (`data/workers.py`), which ends when it is told to.

In: a stage and its data. Out: Trainer's loop, which before every step asks all processes whether each has its data and
none is to stop. If not so, all of them end together after the step that is done, with a checkpoint of it; so neither a
worker that was killed nor one that hangs loses what was learned.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from flashsloth.training import ranks
from flashsloth.training.batch_facts import BatchFacts, CountingCollator, take_facts
from flashsloth.training.checkpoints import PREFIX
from flashsloth.training.data.sample import DataError
from flashsloth.training.data.worker_process import travelling
from flashsloth.training.data.workers import StoppedWaiting, WorkerError, WorkerPool
from flashsloth.training.meter import Meter
from flashsloth.training.random_state import kept_random_state
from flashsloth.training.recipe import StageRun
from flashsloth.training.stage_data import BatchMaker, PooledLoader, Supply, step_loader
from flashsloth.training.stop import StopRequest

logger = logging.getLogger(__name__)


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
        self._supply: Supply | None = None
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
        pool = self._make_pool(BatchMaker(self.train_dataset, self.data_collator))
        self._supply = Supply(loader.batch_sampler, pool, self.args.process_index)  # type: ignore[arg-type]
        return self.accelerator.prepare(loader)  # which Trainer counts by, and nobody reads

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        loader = super().get_eval_dataloader(eval_dataset)
        loader.base_dataloader = PooledLoader(
            loader.base_dataloader, self._held_out_collator, self._make_pool_of_held_out
        )
        return loader

    def _make_pool(self, make: BatchMaker) -> WorkerPool:
        return WorkerPool(
            make,
            self.run.workers,
            patience=self.run.worker_timeout,
            pinned=self.args.device.type != "cpu",
            is_asked_to_stop=lambda: self.stop_request.is_asked,
        )

    def _make_pool_of_held_out(self, make: BatchMaker) -> WorkerPool:
        pool = self._make_pool(make)
        if ranks.count() > 1:  # who left alone would be waited for: see `prediction_step`
            pool.is_asked_to_stop = lambda: False
        return pool

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As Trainer's; nothing where a signal, or trouble with the data, put it off until the run goes on."""
        try:
            with kept_random_state():
                return super().evaluate(*args, **options)
        except StoppedWaiting:
            self.leave(max(ranks.gathered(self.stop_request.signal_number)))
        except (WorkerError, DataError) as error:
            if not self.is_in_train or ranks.count() > 1:
                raise
            self._trouble = error
            self.leave(0)
        self._evaluation_due = True
        return {}

    def prediction_step(self, *args: Any, **options: Any) -> Any:
        if self.is_in_train and any(ranks.gathered(self.stop_request.is_asked)):
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

        assert self._supply is not None
        if self.stop_request.is_asked:
            raise StoppedWaiting
        batches = self._supply.take(count)
        return [send_to_device(batch, self.args.device, non_blocking=True) for batch in batches]

    def _is_to_leave(self, trouble: Exception | None) -> bool:
        """Before a step: whether any process was asked to stop, or has no data. If so, all end after the last step."""
        mine = [float(self.stop_request.is_asked), float(trouble is not None)]
        if not any(ranks.summed(mine, self.args.device)):
            return False
        told = ranks.gathered((self.stop_request.signal_number, trouble and travelling(trouble)))
        self._trouble = next((theirs for _, theirs in told if theirs is not None), None)
        self.leave(max(signal for signal, _ in told))
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
        if isinstance(self._trouble, WorkerError):
            raise WorkerError(f"{self._trouble}; {where}: go on with --resume") from self._trouble
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
            if self._supply is not None:
                self._supply.pool.close()
        self._raise_trouble()
        return done

    def _run_epoch(self, **loop: Any) -> None:
        is_last = self.state.global_step >= self.state.max_steps  # the checkpoint of the last step
        if self.stopped_by or self._trouble or is_last:
            self.control.should_training_stop = True
            return
        assert self._supply is not None
        is_resumed = loop["resume_from_checkpoint"] is not None and loop["epoch"] == loop["epochs_trained"]
        self._supply.begin_epoch(loop["epoch"], loop["steps_trained_in_current_epoch"] if is_resumed else 0)
        super()._run_epoch(**loop)


__all__ = ["SuppliedTrainer"]
