"""The engine's settings: every number that one may want to change.

In: nothing, or what a caller wants. Out: an :class:`EngineConfig`, checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flashsloth.errors import LoadError
from flashsloth.inference.sampling_params import whole_number

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
            whole_number(name, getattr(self, name), 1, error=LoadError)
        if self.cache_bytes is not None:
            whole_number("cache_bytes", self.cache_bytes, 0, error=LoadError)
        if not isinstance(self.cuda_graphs, bool):
            raise LoadError(f"cuda_graphs is {self.cuda_graphs!r}; expected True or False")


def cache_budget(config: EngineConfig, device: torch.device) -> int:
    """Bytes for keys and values of running sequences."""
    if config.cache_bytes is not None:
        return config.cache_bytes
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + cached
    else:
        import psutil

        free = psutil.virtual_memory().available
    return int(free * MEMORY_SHARE)
