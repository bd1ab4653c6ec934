"""Recording without a CUDA device: a replay runs the pass again, and fails where a graph would do something else.

A real graph starts the same operations on the same addresses again, whatever Python says meanwhile. So here every
operation of a pass is written down with its shapes, numbers and addresses, and fails

- when it is recorded, if it reads a tensor that is neither static, nor a weight, nor made in the pass; if it makes one
  without saying on which device; or if it asks what a tensor holds, as a graph cannot;
- when it is replayed, if it is not what was written down: a new shape, another number, an input elsewhere.

What a recording hands out is in the same memory each time, and nothing is there before the first replay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from flashsloth.inference.engine.cuda_graph import Pass, Tensors

ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "repeat_interleave")
"""Operations whose result, or its shape, hangs on what a tensor holds."""

MAKING = (torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.tensor, torch.zeros)


class GraphMismatchError(AssertionError):
    """A replay would not do what the pass does now, or nothing could be recorded."""


class Operations(TorchDispatchMode):
    """Writes down what is done.

    Args:
        known: numbers of bytes' addresses that a graph may read.
    """

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self._known = known
        self._made: dict[int, int] = {}  # address of memory made here -> its number
        self._kept: list[torch.UntypedStorage] = []  # so that no address comes twice
        self.written: list[list[Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, asks = _named(func)
        if asks:
            raise GraphMismatchError(f"{name} asks what a tensor holds, which a graph cannot")
        noted: list[Any] = [name]
        for one in _flat((*args, *(kwargs or {}).values())):
            noted.append(self._noted(one) if isinstance(one, torch.Tensor) else one)
        self.written.append(noted)
        places = args[1] if "aten.index" in name and isinstance(args[1], list | tuple) else []
        if any(isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in places):
            raise GraphMismatchError(f"{name} takes places by a mask, whose number a graph cannot know")
        output = func(*args, **(kwargs or {}))
        for one in _flat((output,)):
            if isinstance(one, torch.Tensor):
                self._keep(one.untyped_storage())
        return output

    def _keep(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address and address not in self._known and address not in self._made:
            self._made[address] = len(self._made)
            self._kept.append(storage)

    def _noted(self, given: torch.Tensor) -> tuple[Any, ...]:
        address = given.untyped_storage().data_ptr()
        layout = given.shape, given.stride(), given.storage_offset(), given.dtype
        if address in self._known:
            return "static", address, *layout
        if address in self._made:
            return "made", self._made[address], *layout
        if not given.numel():
            return "empty", *layout
        raise GraphMismatchError(f"a tensor {list(given.shape)} is neither static, nor a weight, nor made in the pass")


@cache
def _named(func: Any) -> tuple[str, bool]:
    """An operation's name, and whether it is one of `ASKING`."""
    return str(func), any(f".{word}" in str(func) for word in ASKING)


def _flat(given: Iterable[Any]) -> Iterator[Any]:
    """All that stands in lists and tuples of arguments, one after the other."""
    for one in given:
        if isinstance(one, list | tuple):
            yield from _flat(one)
        else:
            yield one


class Placed(TorchFunctionMode):
    """Fails where a tensor is made and no device named: it would be on the processor, whatever the pass runs on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MAKING and (kwargs or {}).get("device") is None:
            raise GraphMismatchError(f"{func.__name__} makes a tensor and does not say where, so not on the device")
        return func(*args, **(kwargs or {}))


class CheckedGraphs:
    """Records passes of one model.

    Args:
        model: whose weights a pass may read.

    Attributes:
        captured: how many passes were recorded.
        failing: what to raise in the place of recording, if anything.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self.captured = self.released = 0
        self.failing: Exception | None = None

    def capture(self, run: Pass, static: Sequence[torch.Tensor]) -> Pass:
        """See :class:`flashsloth.inference.engine.cuda_graph.Graphs`."""
        if self.failing is not None:
            raise self.failing
        self.captured += 1
        weights = [*self._model.parameters(), *self._model.buffers()]
        known = {one.untyped_storage().data_ptr() for one in (*static, *weights)} - {0}
        output, written = _written(run, known)
        held = tuple(torch.full_like(one, -7 if one.dtype == torch.long else torch.nan) for one in output)

        def replay() -> Tensors:
            output, now = _written(run, known)
            _compare(written, now)
            for place, new in zip(held, output, strict=True):
                place.copy_(new)
            return held

        return replay

    def release(self) -> None:
        """See :class:`flashsloth.inference.engine.cuda_graph.Graphs`."""
        self.released += 1


def _written(run: Pass, known: set[int]) -> tuple[Tensors, list[list[Any]]]:
    with Placed(), Operations(known) as operations:
        output = run()
    return output, operations.written


def _compare(written: list[list[Any]], now: list[list[Any]]) -> None:
    for before, after in zip(written, now, strict=False):
        if before != after:
            raise GraphMismatchError(f"recorded was {before}; now it is {after}")
    if len(written) != len(now):
        raise GraphMismatchError(f"recorded were {len(written)} operations; now there are {len(now)}")
