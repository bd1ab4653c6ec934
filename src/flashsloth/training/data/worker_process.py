"""A data worker's own side: it makes the batches that it is asked for, and ends with the process that asks.

In: a socket, and what makes a batch. Out, over the socket: batches, or a :class:`Failure` in place of one. And, for who
starts workers: how many of them there are open files for.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from flashsloth.training.data.parcels import receive, send

logger = logging.getLogger(__name__)

FILES_PER_WORKER, FILES_LEFT = 2, 32
"""Open files that a worker takes where it was started (its socket, and what tells that it ended), and what a run needs
beside them."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Failure:
    """What a worker answers in place of a batch."""

    error: Exception


def work(channel: socket.socket, inherited: list[socket.socket], make: Callable[[list[int]], Any]) -> None:
    """A worker's life: until the process that it works for is gone.

    Schedulers and terminals signal every process of a job; a worker leaves stopping to the run. Its copies of other
    workers' sockets are closed, so that whoever dies is missed.
    """
    for other in inherited:
        other.close()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        while True:
            number, samples = receive(channel)
            try:
                answer = make(samples)
            except Exception as error:
                answer = Failure(travelling(error))
            send(channel, answer)
    except (EOFError, OSError):
        os._exit(0)


def travelling(error: Exception) -> Exception:
    """An error that another process can raise: itself where it can be pickled, and where it happened beside it."""
    error.add_note(f"in a data worker:\n{traceback.format_exc()}")
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a class's own way of being pickled raises
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    assert isinstance(copy, Exception)
    return copy


def affordable(workers: int) -> int:
    """How many of the wanted workers this process may have open files for, and a word on it where they are fewer."""
    try:
        import resource
    except ImportError:  # no such limit on this system
        return workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else FILES_LEFT
    needed = used + FILES_LEFT + workers * FILES_PER_WORKER
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return workers
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    found = max(0, min(workers, (soft - used - FILES_LEFT) // FILES_PER_WORKER))
    if found < workers:
        logger.warning(
            "%d data workers instead of %d: a process may have %d files open here (`ulimit -n`), and %d are in use",
            found,
            workers,
            soft,
            used,
        )
    return found


__all__ = ["FILES_LEFT", "FILES_PER_WORKER", "Failure", "affordable", "travelling", "work"]
