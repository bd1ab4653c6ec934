"""A data worker's own side: it makes the batches that it is asked for, and ends with the process that asks.

In: a socket, and what makes a batch. Out, over the socket: batches, or a :class:`Failure` in place of one. And, for who
starts workers: how many of them there are open files for.

Batches between processes, over a socket: no shared memory, of which containers have little, no open file a tensor.

In: a batch, and a connected socket. Out, at its other end: the same batch, its tensors in memory of their own, pinned
where an accelerator is to copy from it. A tensor's bytes are written from where they are and read to where they stay.

    count         uint64: tensors that follow
    record        pickled, its length before it; tensors stand in it by number, with type and shape
    tensors       the bytes of each, its length before it
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_LENGTH = struct.Struct("!Q")


def send(channel: socket.socket, value: Any) -> None:
    """Write a value that can be pickled.

    Raises:
        OSError: if nobody reads at the other end.
    """
    record = io.BytesIO()
    packer = _Packer(record, protocol=pickle.HIGHEST_PROTOCOL)
    packer.dump(value)
    channel.sendall(_LENGTH.pack(len(packer.tensors)))
    for part in (record.getbuffer(), *map(_bytes_of, packer.tensors)):
        channel.sendall(_LENGTH.pack(len(part)))
        channel.sendall(part)


def receive(channel: socket.socket, pinned: bool = False) -> Any:
    """Read a value.

    Args:
        channel: where :func:`send` writes at the other end.
        pinned: have tensors in page-locked memory.

    Raises:
        EOFError: if the other end was closed, also in the midst of a value.
    """
    count = _length(channel)
    record = memoryview(bytearray(_length(channel)))
    _fill(channel, record)
    tensors = []
    for _ in range(count):
        tensor = torch.empty(_length(channel), dtype=torch.uint8, pin_memory=pinned)
        _fill(channel, _bytes_of(tensor))
        tensors.append(tensor)
    return _Unpacker(io.BytesIO(record), tensors).load()


class _Packer(pickle.Pickler):
    """Leaves tensors out, and remembers them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tensors: list[torch.Tensor] = []

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return None
        self.tensors.append(value.detach().contiguous())
        return len(self.tensors) - 1, value.dtype, tuple(value.shape)


class _Unpacker(pickle.Unpickler):
    """Puts them back."""

    def __init__(self, file: Any, tensors: list[torch.Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, name: Any) -> torch.Tensor:
        number, dtype, shape = name
        return self.tensors[number].view(dtype).view(shape)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """A contiguous tensor's bytes, where they are."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _length(channel: socket.socket) -> int:
    found = memoryview(bytearray(_LENGTH.size))
    _fill(channel, found)
    return int(_LENGTH.unpack(found)[0])


def _fill(channel: socket.socket, place: memoryview) -> None:
    while len(place):
        count = channel.recv_into(place)
        if not count:
            raise EOFError("the other end was closed")
        place = place[count:]


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
