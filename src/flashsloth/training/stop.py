"""Being asked to stop: SIGTERM, as schedulers send it before they kill, and Ctrl-C.

In: a signal. Out: a run that takes its step to the end, saves a checkpoint and leaves with 128 + the signal's number.
A second Ctrl-C does not wait.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

EXIT_CODE_BASE = 128
"""Shells, SLURM and torchrun know a process that a signal ended by this and the signal's number."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingInterrupted(Exception):  # noqa: N818 - it is no error
    """A run was asked to stop, and has saved where it is.

    Attributes:
        exit_code: 143 after SIGTERM, 130 after Ctrl-C.
    """

    def __init__(self, signal_number: int, step: int, steps: int, checkpoint: Path) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(
            f"stopped by {name} after step {step} of {steps}, saved in {checkpoint}: go on with --resume",
        )
        self.exit_code = EXIT_CODE_BASE + signal_number


class StopRequest:
    """Remembers that this process was asked to stop, while it listens."""

    def __init__(self) -> None:
        self.signal_number = 0
        """0 as long as nobody has asked."""
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """From now on. Only a main thread hears signals: elsewhere they do what they always did."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}

    def leave(self) -> None:
        """No longer."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        name = signal.Signals(number).name
        logger.warning("%s: stopping after this step, with a checkpoint", name)
        if number == signal.SIGINT:
            signal.signal(number, self._before.pop(number))


def deafened(loader: Any) -> Any:
    """A data loader whose workers leave stopping to the process they work for.

    Schedulers and terminals signal every process of a job. A worker that died of it would take the run with it before
    the run could save.
    """
    inner = getattr(loader, "base_dataloader", loader)  # accelerate's wrapper hands reading on, not writing
    if inner.num_workers and not isinstance(inner.worker_init_fn, _Deaf):
        inner.worker_init_fn = _Deaf(inner.worker_init_fn)
        multiprocessing.util.Finalize(None, _end_workers, exitpriority=0)
    return loader


def _end_workers() -> None:
    """When this process ends: multiprocessing asks its workers to end, and would wait for deaf ones for ever."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


class _Deaf:
    """A worker's `worker_init_fn`: what it was before, and no signals."""

    def __init__(self, prepare: Callable[[int], None] | None) -> None:
        self.prepare = prepare

    def __call__(self, worker: int) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self.prepare is not None:
            self.prepare(worker)


__all__ = ["StopRequest", "TrainingInterrupted", "deafened"]
