"""What a stage learns from, ready for Trainer: its samples, bad ones left out, in the steps of `data/batches.py`.

In: a stage and its processor. Out: a dataset, and micro-batches whose order depends on seed and epoch alone, of which
each process has its own; those that a resumed run has seen are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from flashsloth.model.configuration_flashsloth import views_of
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.collation import SampleEncoder
from flashsloth.training.data import (
    LEDGER_NAME,
    DataError,
    GuardedData,
    Joined,
    Ledger,
    StepBatchSampler,
    conversations,
)
from flashsloth.training.data.sample import named
from flashsloth.training.data.workers import WorkerPool
from flashsloth.training.metrics import kinds_of_answers
from flashsloth.training.recipe import StageRun


def training_conversations(
    stage: StageRun, processor: FlashSlothProcessor, folder: Path, patch_grid: int | None = None
) -> GuardedData:
    """The samples of a stage that learns answers, encoded; bad ones are written into the ledger in `folder`.

    Raises:
        DataError: if a source cannot be opened, or has no sample that it is to leave out.
    """
    check_resolutions(stage, processor)
    data = conversations(stage.data, patch_grid)
    left_out = [frozenset(source.leave_out) for source in stage.data]
    for part, numbers in zip(data.parts, left_out, strict=True):
        if numbers and max(numbers) >= len(part):
            raise DataError(f"leave_out names sample {max(numbers)} of {part.name}, whose last is {len(part) - 1}")
    ledger = Ledger(folder / LEDGER_NAME, len(data), stage.max_bad_fraction)
    return GuardedData(data, SampleEncoder(processor, stage.settings), ledger, left_out)


def check_resolutions(stage: StageRun, processor: FlashSlothProcessor) -> None:
    """Refuse what the model's processor cannot show.

    Raises:
        DataError: naming the resolution.
    """
    for source in (*stage.data, *stage.eval_data):
        try:
            views_of(source.resolution, processor.image_processor.image_grid)
        except ValueError as error:
            raise DataError(f"the data of stage {stage.stage}: {error}") from error


def held_out_kinds(data: Joined, encode: SampleEncoder) -> list[list[str]]:
    """The kinds of the answers of each held-out sample. Every text is written down once, so that one that cannot be
    asked about is found before anything is learned; pictures stay closed.

    Raises:
        DataError: naming a sample, for held-out ones are not left out.
    """
    kinds = []
    for index in range(len(data)):
        sample = data[index]
        with named(sample):
            kinds.append(kinds_of_answers(sample.kinds, encode.text(sample)["labels"]))
    return kinds


def step_loader(
    dataset: GuardedData | Joined,
    stage: StageRun,
    *,
    seed: int,
    micro_batch_size: int,
    processes: int,
    tokens_per_picture: int,
) -> DataLoader:
    """The micro-batches of a stage, for all processes, as Trainer counts them; :class:`Supply` reads them.

    Args:
        dataset: what they are of.
        stage: says how many samples a step has, and their order.
        seed: of the order.
        micro_batch_size: samples that a process holds at a time.
        processes: how many there are.
        tokens_per_picture: visual tokens, for estimated lengths.
    """
    sampler = StepBatchSampler(
        dataset.data if isinstance(dataset, GuardedData) else dataset,
        seed,
        stage.settings.batch_size,
        micro_batch_size,
        processes,
        stage.shuffle,
        tokens_per_picture if stage.group_by_modality_length else None,
    )
    return DataLoader(dataset, batch_sampler=sampler)


@dataclass
class BatchMaker:
    """Makes a batch of sample numbers, here or in a worker."""

    dataset: Any
    collator: Callable[[list[Any]], dict[str, Any]]

    def __call__(self, numbers: list[int]) -> dict[str, Any]:
        return self.collator([self.dataset[number] for number in numbers])


class Supply:
    """A process's own micro-batches, one after another.

    Args:
        sampler: the stage's, for all processes.
        pool: makes them.
        rank: this process's number.
    """

    def __init__(self, sampler: StepBatchSampler, pool: WorkerPool, rank: int) -> None:
        self.sampler, self.pool, self.rank = sampler, pool, rank
        self._epoch: Iterator[Any] = iter(())

    def begin_epoch(self, epoch: int, seen: int) -> None:
        """From now on the micro-batches of this epoch, without the `seen` first ones of this process."""
        self.sampler.set_epoch(epoch)
        first = self.rank + seen * self.sampler.processes
        self._epoch = self.pool.batches(islice(self.sampler, first, None, self.sampler.processes))

    def take(self, count: int) -> list[Any]:
        """The next ones; raises what :meth:`WorkerPool.batches` does."""
        return list(islice(self._epoch, count))


class PooledLoader(DataLoader):
    """A DataLoader's batches, made by workers of ours.

    Args:
        loader: whose.
        collator: makes them of samples.
        make_pool: of its dataset and collator.
    """

    def __init__(
        self,
        loader: DataLoader,
        collator: Callable[[list[Any]], dict[str, Any]],
        make_pool: Callable[[BatchMaker], WorkerPool],
    ) -> None:
        super().__init__(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=collator)
        self.make_pool = make_pool

    def __iter__(self) -> Any:
        assert self.batch_sampler is not None
        pool = self.make_pool(BatchMaker(self.dataset, self.collate_fn))
        try:
            yield from pool.batches(self.batch_sampler)
        finally:
            pool.close()


__all__ = ["BatchMaker", "PooledLoader", "Supply", "held_out_kinds", "step_loader", "training_conversations"]
