"""A data worker's own side: it makes the batches that it is asked for, and ends with the process that asks.

In: a socket, and what makes a batch. Out, over the socket: batches, or the error that one came to. Tensors travel
beside the pickled rest, from the memory they are in to memory of their own, pinned where an accelerator is to copy from
it: no shared memory, of which containers have little, and no open file for each tensor.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import torch

logger = logging.getLogger(__name__)

FILES_PER_WORKER, FILES_LEFT = 2, 32
"""Open files that a worker takes where it was started (its socket, and what tells that it ended), and what a run
needs beside them."""


def send(stream: Any, value: Any) -> None:
    """Write a value that can be pickled to the file of a socket.

    Raises:
        OSError: if nobody reads at the other end.
    """
    record, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    pickler = pickle.Pickler(record, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    pickler.dispatch_table = {torch.Tensor: _reduced}
    pickler.dump(value)
    parts = [buffer.raw() for buffer in buffers]
    pickle.dump([part.nbytes for part in parts], stream)
    for part in (*parts, record.getbuffer()):
        stream.write(part)
    stream.flush()


def receive(stream: Any, pinned: bool = False) -> Any:
    """Read what :func:`send` wrote at the other end, tensors into page-locked memory where they are `pinned`.

    Raises:
        EOFError: if the other end was closed, also in the midst of a value.
    """
    try:
        tensors = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for size in pickle.load(stream)]
        buffers = [tensor.numpy() for tensor in tensors]
        if any(stream.readinto(buffer) < buffer.nbytes for buffer in buffers):
            raise EOFError("the other end was closed in the midst of a tensor")
        return pickle.load(stream, buffers=buffers)
    except pickle.UnpicklingError as error:
        raise EOFError(f"the other end was closed: {error}") from error


def _reduced(tensor: torch.Tensor) -> tuple[Any, ...]:
    """How pickle takes a tensor apart."""
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    return _restored, (pickle.PickleBuffer(flat.numpy().data), tensor.dtype, tuple(tensor.shape))


def _restored(flat: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Of the tensor in `receive` whose memory `flat` shows, which knows whether it is page-locked."""
    tensor: torch.Tensor = flat.base
    return tensor.view(dtype).view(shape)


def work(channel: socket.socket, inherited: Iterable[socket.socket], make: Callable[[Any], Any]) -> None:
    """A worker's life: until the process that it works for is gone.

    Schedulers and terminals signal every process of a job; a worker leaves stopping to the run. Its copies of other
    workers' sockets are closed, so that their ends are noticed.
    """
    for other in inherited:
        os.close(other.detach())  # which close() would put off as long as somebody reads from it
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    stream = channel.makefile("rwb")
    try:
        while True:
            samples = receive(stream)
            try:
                answer = make(samples)
            except Exception as error:
                answer = picklable(error)
            send(stream, answer)
    except (EOFError, OSError):
        os._exit(0)


def picklable(error: Exception) -> Exception:
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
