"""Batches between processes, over a socket: no shared memory, of which containers have little, no open file a tensor.

In: a batch, and a connected socket. Out, at its other end: the same batch, its tensors in memory of their own, pinned
where an accelerator is to copy from it. A tensor's bytes are written from where they are and read to where they stay.

    count         uint64: tensors that follow
    record        pickled, its length before it; tensors stand in it by number, with type and shape
    tensors       the bytes of each, its length before it
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
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


__all__ = ["receive", "send"]
