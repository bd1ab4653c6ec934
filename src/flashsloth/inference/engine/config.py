"""Limits and habits of the engine: every number that one may want to turn.

In: nothing, or what a caller wants. Out: an :class:`EngineConfig`, checked.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import torch

from flashsloth.errors import LoadError

MAX_ROWS = 32
"""Sequences that run at once: beyond, a step of a processor costs as much more as it does more."""
MEMORY_SHARE = 0.5
"""Of the memory that is free when the engine is made, what keys and values of running sequences may take."""


@dataclass(frozen=True)
class EngineConfig:
    """How an engine works.

    Attributes:
        max_rows: sequences that run at once.
        cache_bytes: for keys and values of running sequences; None for a share of what is free. On CUDA they are taken
            with the first request, as far as `max_rows` answers of the model's whole context can use them.
        pictures_per_step: that are encoded before a step while someone reads an answer as it comes.
        prompt_tokens_per_step: that are run before a step; one prompt may be longer.
        workers: threads that open and resize pictures and write prompts.
        cuda_graphs: whether passes are recorded and replayed on CUDA; elsewhere they never are.
    """

    max_rows: int = MAX_ROWS
    cache_bytes: int | None = None
    pictures_per_step: int = 8
    prompt_tokens_per_step: int = 8192
    workers: int = 2
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        for name in ("max_rows", "pictures_per_step", "prompt_tokens_per_step", "workers"):
            if not _is_whole(getattr(self, name), 1):
                raise LoadError(f"{name} is {getattr(self, name)!r}; expected a whole number of at least 1")
        if self.cache_bytes is not None and not _is_whole(self.cache_bytes, 0):
            raise LoadError(f"cache_bytes is {self.cache_bytes!r}; expected a whole number of bytes, or None")
        if not isinstance(self.cuda_graphs, bool):
            raise LoadError(f"cuda_graphs is {self.cuda_graphs!r}; expected True or False")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def cache_budget(config: EngineConfig, device: torch.device) -> int:
    """Bytes for keys and values of running sequences."""
    if config.cache_bytes is not None:
        return config.cache_bytes
    return int(free_memory(device) * MEMORY_SHARE)


def free_memory(device: torch.device) -> int:
    """Bytes that are free where the model is."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    import psutil

    return int(psutil.virtual_memory().available)


__all__ = ["MAX_ROWS", "EngineConfig", "cache_budget", "free_memory"]
