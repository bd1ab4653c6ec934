"""The random numbers that training draws, kept apart from everything else that draws some.

A run that went on from a checkpoint has to draw what the run that was not stopped drew. What the model draws (dropout)
is saved and comes back; what preparing data and evaluating draw depends on how often loaders were made, so it must not
move the model's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn on the processor in here was not drawn afterwards."""
    python, numpy, ours = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(ours)


__all__ = ["kept_random_state"]
