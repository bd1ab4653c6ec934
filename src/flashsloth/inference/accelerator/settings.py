"""Shapes and habits of the passes on an accelerator: every number that a day of tuning turns.

In: nothing, or what a test wants. Out: :class:`AcceleratorSettings`.

A shape is rounded up to one of a few (a bucket), so that few are compiled and recorded; what is added is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from flashsloth.speed.errors import SpeedError

INDUCTOR = "inductor"
"""torch.compile's own backend."""


@dataclass(frozen=True)
class AcceleratorSettings:
    """How passes run.

    Attributes:
        backend: torch.compile's backend for every pass; None to leave passes uncompiled.
        records: whether passes are recorded as CUDA graphs and replayed.
        lag: steps that are started before the tokens of an earlier one are looked at. With 1 the accelerator never
            waits for Python to see whether an answer has ended; a step after the end is wasted then.
        slots: how many answers may run at once, ascending: a step is made for the fewest of these that suffice.
        reading_rows: how many prompts may be read in one pass, ascending.
        looking_pictures: how many pictures may be looked at in one pass, ascending.
        prompt_step: prompts are padded to a multiple of this, up to `long_prompt`.
        long_prompt: from here on to a multiple of this.
        recorded_positions: reading passes of more positions (rows x columns) are not recorded: their matrices take
            longer than starting them.
        width_step: columns that a step attends to, and columns of a cache, are a multiple of this.
        memory_share: of the memory that is free, what the cache of many slots may take.
        workers: threads that open and prepare pictures.
        ahead: pictures with questions that are prepared before they are needed.
    """

    backend: str | None = INDUCTOR
    records: bool = True
    lag: int = 1
    slots: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    reading_rows: tuple[int, ...] = (1, 2, 4, 8)
    looking_pictures: tuple[int, ...] = (1, 2, 4, 8)
    prompt_step: int = 32
    long_prompt: int = 512
    recorded_positions: int = 4096
    width_step: int = 256
    memory_share: float = 0.5
    workers: int = 8
    ahead: int = 64

    def __post_init__(self) -> None:
        for name in ("slots", "reading_rows", "looking_pictures"):
            sizes = getattr(self, name)
            if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)):
                raise SpeedError(f"{name} is {sizes!r}; expected whole numbers that begin with 1 and ascend")
        for name in ("prompt_step", "long_prompt", "width_step", "workers", "ahead"):
            if getattr(self, name) < 1:
                raise SpeedError(f"{name} is {getattr(self, name)!r}; expected at least 1")
        if self.lag < 0:
            raise SpeedError(f"lag is {self.lag!r}; expected 0 or more")

    @classmethod
    def of(cls, device: torch.device) -> AcceleratorSettings:
        """What suits a device: everything on CUDA; elsewhere the same passes, plain, as tests run them."""
        return cls() if device.type == "cuda" else cls(backend=None, records=False)

    def prompt_columns(self, length: int) -> int:
        """Columns of a reading pass for prompts of up to `length` positions."""
        step = self.prompt_step if length <= self.long_prompt else self.long_prompt
        return multiple(length, step)

    def width(self, columns: int) -> int:
        """Columns that are attended to, where `columns` are held."""
        return multiple(columns, self.width_step)


def bucket(count: int, sizes: Sequence[int]) -> int:
    """The smallest of `sizes`, ascending, that holds `count`; the largest if none does."""
    return next((size for size in sizes if size >= count), sizes[-1])


def multiple(count: int, step: int) -> int:
    """`count` rounded up to a multiple of `step`, at least one."""
    return max(1, -(-count // step)) * step


__all__ = ["INDUCTOR", "AcceleratorSettings", "bucket", "multiple"]
