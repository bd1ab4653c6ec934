"""Keeps threads of OpenMP from waiting for work where there is none for them.

GNU's OpenMP, which torch computes with on a processor, keeps helpers for each thread that ever ran something in
parallel. Helpers that wait watch for work for a moment before they fall asleep; but where there are more of them in all
than there are cores, they fall asleep at once, and waking them takes longer than what most operations of a step do. So
a thread that lets the engine's thread compute (loading a model has given it helpers) gives its own back, as does the
engine's when it has nothing to do; they come again with the next thing that it runs in parallel. Threads that prepare
pictures beside one another never have any.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

SOFT_PAUSE = 1
"""omp_pause_soft of OpenMP 5: what was set stays."""


def give_back_idle_threads() -> None:
    """Give back the calling thread's helpers; nothing happens where it has none, or where OpenMP is another's."""
    library = _gnu_openmp()
    if library is not None:
        library.omp_pause_resource_all(SOFT_PAUSE)


def compute_alone() -> None:
    """Let torch's own loops in the calling thread run without helpers; nothing happens where OpenMP is another's."""
    library = _gnu_openmp()
    if library is not None:
        torch.get_num_threads()  # torch sets a thread's number where it asks for it first
        library.omp_set_num_threads(1)


@cache
def _gnu_openmp() -> ctypes.CDLL | None:
    """The library that torch brings along, and has loaded; None where it has another, whose pauses stop all threads."""
    for file in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            library = ctypes.CDLL(str(file))
        except OSError:
            continue
        if hasattr(library, "omp_pause_resource_all"):  # not before OpenMP 5
            return library
    return None


__all__ = ["compute_alone", "give_back_idle_threads"]
