"""What a stage learns from, ready for Trainer: its samples, bad ones left out, in the steps of `data/batches.py`.

In: a stage and its processor. Out: a dataset, and a DataLoader of micro-batches whose order depends on seed and epoch
alone. Trainer and accelerate deal the micro-batches to the processes, and skip those that a resumed run has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.collation import SampleEncoder
from flashsloth.training.data import LEDGER_NAME, GuardedData, Joined, Ledger, StepBatchSampler, conversations
from flashsloth.training.recipe import StageRun


def training_conversations(
    stage: StageRun, processor: FlashSlothProcessor, folder: Path, patch_grid: int | None = None
) -> GuardedData:
    """The samples of a stage that learns answers, encoded; bad ones are written into the ledger in `folder`.

    Raises:
        DataError: if a source cannot be opened.
    """
    data = conversations(stage.data, patch_grid)
    ledger = Ledger(folder / LEDGER_NAME, len(data), stage.max_bad_fraction)
    return GuardedData(data, SampleEncoder(processor, stage.settings), ledger)


def step_loader(
    dataset: GuardedData | Joined,
    collator: Callable[[list[Any]], dict[str, Any]],
    stage: StageRun,
    *,
    seed: int,
    micro_batch_size: int,
    processes: int,
    tokens_per_picture: int,
    pin_memory: bool,
) -> DataLoader:
    """The micro-batches of a stage, for all processes; accelerate's `prepare` leaves each its own.

    Args:
        dataset: what they are of.
        collator: puts them together.
        stage: says how many samples a step has, their order, and how many workers read them.
        seed: of the order.
        micro_batch_size: samples that a process holds at a time.
        processes: how many there are.
        tokens_per_picture: visual tokens, for estimated lengths.
        pin_memory: whether batches are to be copied to an accelerator.
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
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collator,
        num_workers=stage.workers,  # they end with the epoch: ones that stay would keep the process from ending
        pin_memory=pin_memory,
    )


__all__ = ["step_loader", "training_conversations"]
