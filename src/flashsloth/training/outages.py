"""What ends a run from outside: a device that is full, a process that is gone.

In: errors of torch and of what it talks over. Out: an :class:`OutageError` that says what happened and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from flashsloth.training import ranks

_FULL_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""How torch says on a processor what it has a kind of error for on a device."""
_TRANSPORTS = ("gloo", "NCCL")
"""In the message of an error that came of talking to another process."""
GO_ON = "go on from the last checkpoint with --resume"


class OutageError(ValueError):
    """A run that could not go on where it runs; neither recipe nor data need be wrong."""

    exit_code = 1


@contextmanager
def told_plainly() -> Iterator[None]:
    """Give errors of these kinds their words.

    Raises:
        OutageError: instead of torch's.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutageError(_full(error)) from error
    except MemoryError as error:
        raise OutageError(f"not enough memory, here or in a data worker: set a lower workers ({error!r})") from error
    except RuntimeError as error:
        if _FULL_MEMORY in str(error):
            raise OutageError(_full(error)) from error
        if not _is_of_another_process(error):
            raise
        raise OutageError(
            f"process {ranks.rank()} of {ranks.count()} cannot reach another one, which has probably died: see what "
            f"that one said, then {GO_ON} ({error})"
        ) from error


def _full(error: RuntimeError) -> str:
    return (
        f"not enough memory for a step: lower micro_batch_size, which leaves the batch as it is, or set "
        f"activation_checkpointing: true; `flashsloth plan` of the recipe tells what a step takes ({error})"
    )


def _is_of_another_process(error: RuntimeError) -> bool:
    talked = isinstance(error, distributed.DistError) or any(name in str(error) for name in _TRANSPORTS)
    return ranks.count() > 1 and talked


__all__ = ["OutageError", "told_plainly"]
