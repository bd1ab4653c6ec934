"""What ends a run from outside: a signal, a device that is full, a process that is gone.

In: SIGTERM, as schedulers send it before they kill, or Ctrl-C; errors of torch and of what it talks over. Out: a run
that takes its step to the end, saves a checkpoint and leaves with 128 + the signal's number (it waits neither for data
nor for an evaluation; a second Ctrl-C does not wait for the step either); an :class:`OutageError` that says what
happened and what to do.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import distributed

from flashsloth.errors import FlashSlothError
from flashsloth.training import distributed as ranks

logger = logging.getLogger(__name__)

EXIT_CODE_BASE = 128
"""Shells, SLURM and torchrun know a process that a signal ended by this and the signal's number."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FULL_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""How torch says on a processor what it has a kind of error for on a device."""
_TRANSPORTS = ("gloo", "NCCL")
"""In the message of an error that came of talking to another process."""
GO_ON = "go on from the last checkpoint with --resume"


class TrainingInterrupted(Exception):  # noqa: N818 - it is no error
    """A run was asked to stop, and has saved where it is.

    Attributes:
        exit_code: 143 after SIGTERM, 130 after Ctrl-C.
    """

    def __init__(self, signal_number: int, step: int, steps: int, checkpoint: Path) -> None:
        name = signal.Signals(signal_number).name
        where = f"after step {step} of {steps}, saved in {checkpoint}" if step else "before the first step was done"
        super().__init__(f"stopped by {name} {where}: go on with --resume")
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

    @property
    def is_asked(self) -> bool:
        """Whether somebody has asked."""
        return self.signal_number != 0

    def leave(self) -> None:
        """No longer."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        name = signal.Signals(number).name
        logger.warning("%s: stopping, with a checkpoint of the last step that is done", name)
        if number == signal.SIGINT:
            signal.signal(number, self._before.pop(number))


class OutageError(FlashSlothError, ValueError):
    """A run that could not go on where it runs; neither recipe nor data need be wrong."""

    exit_code = 1


@contextmanager
def translate_errors() -> Iterator[None]:
    """Say in plain words what ended a run from outside.

    Raises:
        OutageError: instead of torch's.
    """
    try:
        yield
    except MemoryError as error:
        raise OutageError(f"not enough memory, here or in a data worker: set a lower workers ({error!r})") from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or _FULL_MEMORY in str(error):
            raise OutageError(
                f"not enough memory for a step: lower micro_batch_size, which leaves the batch as it is, or set "
                f"activation_checkpointing: true; `flashsloth plan` of the recipe tells what a step takes ({error})"
            ) from error
        talked = isinstance(error, distributed.DistError) or any(name in str(error) for name in _TRANSPORTS)
        if ranks.count() == 1 or not talked:
            raise
        raise OutageError(
            f"process {ranks.rank()} of {ranks.count()} cannot reach another one, which has probably died: see what "
            f"that one said, then {GO_ON} ({error})"
        ) from error
