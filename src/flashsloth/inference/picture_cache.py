"""Pictures that are asked about again: what the model made of them, kept within a number of bytes.

In: what was computed, under a key of everything that it depends on. Out: the same again, until `limit` bytes are full:
what was used longest ago goes first.

    features      encoder features and visual tokens of a picture
    prefix        keys and values of a prompt's prefix (system text and pictures)

Both are exact, for nothing that comes later changes them: the pictures stand before the question. A key holds the
picture's pixels (as a digest), the preprocessing and the state of the weights, so that no other picture's, processor's
or training step's work is ever taken.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

from flashsloth.errors import LoadError
from flashsloth.inference.sampling_params import whole_number

DEFAULT_BYTES = 1 << 30
"""Some twenty-five pictures of the published standard model, seven of its HD model."""


class PictureCache:
    """Values under keys, the least recently used dropped where all together pass `limit` bytes. Threads may share it.

    Args:
        limit: bytes; 0 keeps nothing.

    Raises:
        LoadError: for a negative limit.
    """

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self.limit = whole_number("picture_cache", limit, 0, error=LoadError)
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[PictureCache], tuple[int]]:
        """A copy, here or in another process, is as large and empty: what is held depends on weights of its own."""
        return PictureCache, (self.limit,)

    @property
    def bytes_held(self) -> int:
        """Bytes of everything held."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Any:
        """What was put under `key`, or None."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of `size` bytes, unless it is larger than the limit."""
        with self._lock:
            if key in self._entries:
                self._bytes -= self._entries.pop(key)[1]
            if size > self.limit:
                return
            self._entries[key] = value, size
            self._bytes += size
            while self._bytes > self.limit:
                self._bytes -= self._entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


class WeightsState:
    """Notices when a weight of a model was replaced or written to, or a module replaced by another.

    What is written through `weight.data` is not noticed: torch counts no such change.

    Args:
        model: whose modules and parameters are remembered, so that to ask costs microseconds.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._changes = model, 0
        self._lock = threading.Lock()
        self._remember()

    def __call__(self) -> int:
        """Another number after each change."""
        with self._lock:
            if not self._is_same():
                self._remember()
                self._changes += 1
            return self._changes

    def addresses(self) -> list[int]:
        """Where the weights' memory is: changed where one was replaced, the same where it was written to."""
        weights = (owner.get(name) for owner, name, *_ in self._weights)
        return [one.data_ptr() for one in weights if one is not None]

    def _remember(self) -> None:
        modules = list(self._model.modules())
        self._modules = [(one._modules, name, child) for one in modules for name, child in one._modules.items()]
        self._weights = [  # by weak references: an address may come to be another's, and old weights are not held
            (one._parameters, name, weakref.ref(weight), weight.dtype, _version(weight))
            for one in modules
            for name, weight in one._parameters.items()
            if weight is not None
        ]

    def _is_same(self) -> bool:
        for owner, name, child in self._modules:
            if owner.get(name) is not child:
                return False
        for weights, name, known, dtype, version in self._weights:
            weight = weights.get(name)
            if weight is None or known() is not weight or weight.dtype != dtype or _version(weight) != version:
                return False
        return True


def _version(weight: torch.Tensor) -> int:
    """How often a weight was written to; those made in inference mode do not count it."""
    return 0 if weight.is_inference() else weight._version
