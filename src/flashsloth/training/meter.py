"""What a run has done since its last line of the log: the loss, how fast it went, how much memory it held.

In: each optimizer step's sums over all processes, and the time that steps took. Out: the numbers of a log line. Sums go
into a checkpoint and come back out of it, so that a run that was stopped logs what the run that was not stopped logs.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from typing import Any

GIGABYTE = 1e9


@dataclass
class StepSums:
    """Sums over all processes, and over the steps since the last log line.

    Attributes:
        loss: of each step the mean over its supervised tokens.
        steps: optimizer steps.
        samples: that were learned from.
        tokens: of their rows, without padding.
        flops: that their forward and backward passes need.
    """

    loss: float = 0.0
    steps: int = 0
    samples: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0

    def add(self, other: StepSums) -> None:
        """Another step's."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class Meter:
    """Adds steps up and makes log lines of them.

    Attributes:
        since_log: sums that a log line has still to show.
        measured: those of this process's own time: steps before a restart took nobody's time here.
        matrix_rate: operations a second of all devices together, or None.
    """

    def __init__(self) -> None:
        self.since_log, self.measured = StepSums(), StepSums()
        self.matrix_rate: float | None = None
        self._seconds = self._waited = 0.0
        self._began: float | None = None

    def begin_step(self) -> None:
        """The data of a step is about to be taken."""
        self._began = time.perf_counter()

    def has_data(self) -> None:
        """And is there."""
        assert self._began is not None
        self._waited += time.perf_counter() - self._began

    def end_step(self, sums: StepSums) -> None:
        """The weights have moved."""
        assert self._began is not None
        self._seconds += time.perf_counter() - self._began
        self._began = None
        self.since_log.add(sums)
        self.measured.add(sums)

    def take(self, peak_bytes: int) -> dict[str, float]:
        """A log line's numbers; the next one begins anew."""
        seconds, done = self._seconds, self.measured
        line = {"loss": self.since_log.loss / max(1, self.since_log.steps)}
        if seconds > 0:
            line["samples_per_second"] = done.samples / seconds
            line["tokens_per_second"] = done.tokens / seconds
            line["seconds_per_step"] = seconds / done.steps
            line["waiting_for_data"] = self._waited / seconds
            if self.matrix_rate and done.flops:
                line["mfu"] = done.flops / seconds / self.matrix_rate
        line["peak_memory_gb"] = peak_bytes / GIGABYTE
        self.since_log, self.measured = StepSums(), StepSums()
        self._seconds = self._waited = 0.0
        return line

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return asdict(self.since_log)

    def restore(self, kept: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        self.since_log = StepSums(**kept)


__all__ = ["Meter", "StepSums"]
