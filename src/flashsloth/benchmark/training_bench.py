"""Training memory and time of FlashSloth beside the same towers with all visual tokens: measured, then counted.

In: a size, a depth, a batch. Out: :class:`TrainingResults`, which `training_report.py` shows.

    measured    at true widths and a depth that this machine has memory for, each subject in a process of its own:
                seconds a sample, the process's resident set, and the bytes of torch's tensors
    counted     at full depth and a training run's micro-batch, by `training_step.py`: no extrapolation from the
                measured, but the same model code on tensors without numbers; nothing is timed
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.benchmark.machine import cpu_name
from flashsloth.benchmark.training_job import STAGE_NAMES, SUBJECTS, TrainingJob
from flashsloth.benchmark.training_step import MIXED, step_bytes
from flashsloth.benchmark.worker_process import WorkerProcess

MODULE = "flashsloth.benchmark.training_worker"
TEXT_TOKENS = {"alignment": 32, "instruction": 310}
"""Stage -> text of a sample: about a caption's; what makes 400 positions of FlashSloth's stage 2."""
FULL_ROWS = {"alignment": 32, "instruction": 16}
"""Stage -> samples a device has at a time in the published runs on eight devices."""
ADAMW_BYTES = 8
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Measured:
    """One subject in one stage: what was asked, and what the worker said (see `training_worker.py`)."""

    job: dict[str, Any]
    found: dict[str, Any]

    @property
    def seconds_per_sample(self) -> float:
        """Median."""
        return statistics.median(self.found["seconds"]) / self.job["rows"]

    @property
    def tensor_bytes(self) -> int:
        """Weights, optimizer, and the most that a step holds beside them, gradients and all."""
        return self.found["weight_bytes"] + self.found["optimizer_bytes"] + self.found["step_bytes"]


@dataclass(frozen=True)
class Counted:
    """One subject in one stage at full depth: bytes by part, with float32 weights and bfloat16 autocast."""

    subject: str
    stage: str
    rows: int
    positions: int
    activation_checkpointing: bool
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class TrainingResults:
    """What was found, on what."""

    machine: dict[str, Any]
    measured: list[Measured]
    counted: list[Counted]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)


def run_training_bench(
    model: str | None, layers: int | None, rows: int, steps: int, threads: int | None, say: Callable[[str], None]
) -> TrainingResults:
    """Measure both subjects in both stages, one process after the other, and count them at full depth.

    Args:
        model: the size, as `flashsloth plan` takes it; None for the small model.
        layers: of each tower, of what is measured; None for all.
        rows: samples a step, of what is measured.
        steps: that are timed.
        threads: of each process; None for as many as torch takes.
        say: told what is done.

    Raises:
        BenchmarkError: for a size that cannot be, or a process that failed.
    """
    if steps < 1:
        raise BenchmarkError(f"steps is {steps}; expected at least 1")
    jobs = [
        TrainingJob(subject, stage, model, layers, rows, TEXT_TOKENS[stage])
        for stage in STAGE_NAMES
        for subject in SUBJECTS
    ]
    measured = []
    for job in jobs:
        say(f"training {job.subject}, {job.stage}")
        with WorkerProcess(threads, [sys.executable, "-m", MODULE]) as worker:
            measured.append(Measured(job.to_dict(), worker.request("measure", job=job.to_dict(), steps=steps)))
    counted = []
    for job in jobs:
        for again in (False, True):
            say(f"counting {job.subject}, {job.stage}")
            counted.append(count(job, again))
    return TrainingResults(_machine(measured), measured, counted)


def count(job: TrainingJob, activation_checkpointing: bool) -> Counted:
    """A job's memory at full depth and a training run's micro-batch."""
    whole = dataclasses.replace(job, layers=None, rows=FULL_ROWS[job.stage])
    config = whole.config()
    step = step_bytes(
        config, whole.trains, whole.micro_batch, computing=MIXED, activation_checkpointing=activation_checkpointing
    )
    return Counted(
        subject=job.subject,
        stage=job.stage,
        rows=whole.rows,
        positions=whole.micro_batch.positions(config),
        activation_checkpointing=activation_checkpointing,
        weights=step.weights,
        gradients=step.learning * FLOAT32_BYTES,
        optimizer=step.learning * ADAMW_BYTES,
        activations=step.activations,
    )


def load_training_results(path: Path) -> TrainingResults:
    """An earlier run.

    Raises:
        BenchmarkError: if it is none.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return TrainingResults(
            tree["machine"], [Measured(**one) for one in tree["measured"]], [Counted(**one) for one in tree["counted"]]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path} holds no results of flashsloth bench --training: {error}") from error


def _machine(measured: list[Measured]) -> dict[str, Any]:
    share = max(one.found["others_share"] for one in measured)
    return {
        "name": cpu_name(),
        "system": platform.platform(),
        "threads": measured[0].found["threads"],
        "torch": torch.__version__,
        "disturbed": f"others took up to {share:.0%} of the machine",
    }


__all__ = [
    "Counted",
    "Measured",
    "TrainingResults",
    "count",
    "load_training_results",
    "run_training_bench",
]
