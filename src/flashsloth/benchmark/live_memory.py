"""Counts the bytes of all tensors that are alive while a block runs: what a pass holds, to the byte, on any device.

In: a model whose weights do not count. Out: the most that was alive at once. On the meta device, or with fake tensors,
what a model of any size would hold.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveMemory(TorchDispatchMode):
    """`peak` is the most that was alive at once of what was made in the block; weights of `model` do not count."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for tensor in (*model.parameters(), *model.buffers()):
            self._known[tensor.untyped_storage()] = True

    def leave_out(self, tensors: Iterable[torch.Tensor | None]) -> None:
        """Do not count these either, such as gradients that are there already."""
        for tensor in tensors:
            if tensor is not None:
                self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = True
        size = storage.nbytes()
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.held -= size


__all__ = ["LiveMemory"]
