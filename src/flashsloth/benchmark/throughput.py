"""How many pictures, and how many tokens, a second: many questions, each about a picture of its own.

In: a subject, how many pictures, how long the answers. Out: a :class:`Throughput`.

The clock runs from pictures in memory to the last token of the last answer, picture preparation included. A subject
that cannot hold so many rows at once is tried with half as many, and so on.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from dataclasses import dataclass
from typing import Any

import torch

from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.benchmark.job import StandardJob
from flashsloth.benchmark.subject import Subject


@dataclass(frozen=True)
class Throughput:
    """What was measured, or why it was not.

    Attributes:
        subject: a name in `subjects.py`.
        new_tokens: of every answer.
        pictures: each with one question.
        rows: answers at once, at most.
        seconds: for all of them.
        failure: in one line, if there is nothing else.
    """

    subject: str
    new_tokens: int
    pictures: int
    rows: int
    seconds: float = 0.0
    failure: str | None = None

    @property
    def pictures_per_second(self) -> float:
        """Answers a second."""
        return self.pictures / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Of all answers together, reading the pictures included."""
        return self.pictures * self.new_tokens / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)


def measure_throughput(
    subject: Subject, name: str, job: StandardJob, pictures: int, new_tokens: int, rows: int, device: torch.device
) -> Throughput:
    """Answer as many questions, once to warm up with a row each, then on the clock."""
    while True:
        try:
            shown = [job.picture(number) for number in range(pictures + rows)]
            subject.answer_all(shown[pictures:], new_tokens, rows)
            subject.forget()
            gc.collect()
            seconds = _timed(subject, shown[:pictures], new_tokens, rows, device)
            return Throughput(name, new_tokens, pictures, rows, seconds)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        subject.forget()
        gc.collect()
        torch.cuda.empty_cache()
        rows //= 2


def _timed(subject: Subject, shown: list[Any], new_tokens: int, rows: int, device: torch.device) -> float:
    recorded = subject.recorded
    _wait(device)
    start = time.perf_counter()
    subject.answer_all(shown, new_tokens, rows)
    _wait(device)
    seconds = time.perf_counter() - start
    if subject.recorded != recorded:
        raise BenchmarkError("a pass was recorded while time was taken; expected all to be warm")
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


__all__ = ["Throughput", "measure_throughput"]
