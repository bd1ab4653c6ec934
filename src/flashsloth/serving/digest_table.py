"""Digests of millions of things, in 32 bytes each: which are there, and what belongs to each.

In: keys with values, all digests of 128 bits. Out: a key's value; and the keys that came more than once.
"""

from __future__ import annotations

import struct

import numpy as np

from flashsloth.serving.batch_lines import DIGEST_BYTES

HALVES = struct.Struct(">QQ")
NUMBER = np.dtype(">u8")


class DigestTable:
    """Keys and their values, which are added first and looked up after."""

    def __init__(self) -> None:
        self._keys, self._values = bytearray(), bytearray()
        self._order: np.ndarray | None = None
        self._high = self._low = np.empty(0, np.uint64)  # halves of the keys, in their order

    def __len__(self) -> int:
        return len(self._keys) // DIGEST_BYTES

    def add(self, key: bytes, value: bytes) -> None:
        """Add a key, which may be there already."""
        assert len(key) == len(value) == DIGEST_BYTES
        self._keys += key
        self._values += value
        self._order = None

    def find(self, key: bytes) -> bytes | None:
        """A key's value, one of them where it came more than once; None where it is not there."""
        order = self._sorted()
        high, low = HALVES.unpack(key)
        place = int(np.searchsorted(self._high, np.uint64(high)))
        while place < len(self) and int(self._high[place]) == high:
            if int(self._low[place]) == low:
                start = int(order[place]) * DIGEST_BYTES
                return bytes(self._values[start : start + DIGEST_BYTES])
            place += 1
        return None

    def repeated(self) -> set[bytes]:
        """Keys that came more than once."""
        self._sorted()
        places = np.flatnonzero((self._high[1:] == self._high[:-1]) & (self._low[1:] == self._low[:-1]))
        return {HALVES.pack(int(self._high[place]), int(self._low[place])) for place in places}

    def _sorted(self) -> np.ndarray:
        if self._order is None:
            halves = np.frombuffer(bytes(self._keys), NUMBER).reshape(-1, 2).astype(np.uint64)  # [keys, 2]
            self._order = np.lexsort((halves[:, 1], halves[:, 0]))
            self._high, self._low = halves[self._order].T.copy()
        return self._order
