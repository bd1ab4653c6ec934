"""Keys and values with room to grow: a step of generation writes one column, and copies nothing.

In: each pass's keys and values. Out: as transformers' `DynamicCache`, which joins old and new into fresh tensors at
every step; here they are views of a larger buffer, which is moved only when it is full.

Legend: B batch, H key heads, T positions held, C positions there is room for, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from flashsloth.inference.kv_cache import LayerStates, plain_cache

ROOM_STEP = 64
"""Columns added beyond what is needed, whenever a buffer is made."""


class RoomyLayer(DynamicLayer):
    """One layer's keys and values; `keys` and `values` are the filled part of the buffers."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None  # [B, H, C, D] both

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: Any,
        **kwargs: Any,  # transformers' signature
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns [B, H, t, D]; returns all, [B, H, T + t, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        total = held + key_states.shape[-2]
        buffers = self._buffers
        if buffers is None or not self._is_inside(buffers) or buffers[0].shape[-2] < total:
            buffers = self._make_room(key_states, value_states, held, total)
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[:, :, held:total] = states
        self.keys, self.values = (buffer[:, :, :total] for buffer in buffers)
        return self.keys, self.values

    def hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Begin with keys and values that stay unchanged themselves: they are copied before anything is written."""
        self.lazy_initialization(keys, values)
        self.keys, self.values, self._buffers = keys, values, None

    def reset(self) -> None:
        super().reset()
        self._buffers = None

    def _is_inside(self, buffers: tuple[torch.Tensor, torch.Tensor]) -> bool:
        """Whether what is held is the beginning of the buffers; not so after rows were picked or repeated."""
        held = (self.keys, self.values)
        return all(
            states.data_ptr() == buffer.data_ptr() and states.shape[0] == buffer.shape[0]
            for states, buffer in zip(held, buffers, strict=True)
        )

    def _make_room(
        self, key_states: torch.Tensor, value_states: torch.Tensor, held: int, total: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        made = []
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            batch, heads, _, width = new.shape
            buffer = new.new_zeros(batch, heads, total + ROOM_STEP, width)  # attention may read the rest, too
            if held:
                buffer[:, :, :held] = old
            made.append(buffer)
        self._buffers = made[0], made[1]
        return self._buffers


def roomy_cache(text_config: Any) -> DynamicCache | None:
    """An empty cache whose beginning can be shared, cut and kept; None where a model keeps another kind of state."""
    cache = plain_cache(text_config)
    if cache is not None:
        cache.layers = [RoomyLayer() for _ in cache.layers]
    return cache


def states_of(cache: DynamicCache, row: int, start: int, stop: int) -> LayerStates:
    """A copy of one row's columns from `start` to `stop`: float [1, H, T, D] both, for each layer."""
    rows, columns = slice(row, row + 1), slice(start, stop)
    return [(layer.keys[rows, :, columns].clone(), layer.values[rows, :, columns].clone()) for layer in cache.layers]


def hold_rows(cache: DynamicCache, rows: list[LayerStates]) -> None:
    """Fill an empty cache with rows of unequal lengths, each padded with zeros on its left to the longest."""
    for number, layer in enumerate(cache.layers):
        states = [row[number] for row in rows]
        if len(states) == 1:
            layer.hold(*states[0])
            continue
        longest = max(keys.shape[-2] for keys, _ in states)
        layer.hold(*(torch.cat([_padded(pair[side], longest) for pair in states]) for side in (0, 1)))


def _padded(states: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(states, (0, 0, length - states.shape[-2], 0))


__all__ = ["RoomyLayer", "hold_rows", "roomy_cache", "states_of"]
