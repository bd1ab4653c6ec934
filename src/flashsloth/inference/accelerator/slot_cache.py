"""Keys and values of many answers in one block of memory that never moves.

In: keys and values of a pass, and where they belong. Out: what the pass may attend to.

A row belongs to one answer, and a column to one position of it: there is nothing padded on the left, and what a query
at position p may see is every column up to p. What stands beyond is left over from earlier answers, or padding; it is
never seen, and written over when its position comes.

    row 0      system text, picture, question, answer so far ...| left over
    ...
    row R      where rows that pad a pass are written
               the last column: where what stands beyond a row's end is written

Legend: R answers, n rows of a pass, t positions of a pass, H key heads, C columns, W columns seen, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

from flashsloth.inference.kv_cache import HeadShapes, LayerStates


class PassCache(Cache):
    """One pass's door to the cache, as transformers' models take it. Made in the pass, so that it compiles with it.

    Args:
        keys, values: float [R + 1, C, H, D] of each layer.
        place: int64 [n * t], rows * C + columns: where the pass's positions are written.
        rows: int64 [n], what each row of the pass attends to; None for the first n.
        count: n.
        width: W.
    """

    def __init__(
        self,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        place: torch.Tensor,
        rows: torch.Tensor | None,
        count: int,
        width: int,
    ) -> None:
        super().__init__(layers=[])
        self._keys, self._values = keys, values
        self._place, self._rows, self._count, self._width = place, rows, count, width

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,  # transformers' signature
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [n, H, t, D]; returns what may be attended to, [n, H, W, D]."""
        keys = self._write_and_see(self._keys[layer_idx], key_states)
        return keys, self._write_and_see(self._values[layer_idx], value_states)

    def _write_and_see(self, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        flat = held.view(-1, held.shape[2], held.shape[3])  # [(R + 1) * C, H, D]
        flat.index_copy_(0, self._place, new.transpose(1, 2).flatten(0, 1))
        seen = held[: self._count, : self._width] if self._rows is None else held[:, : self._width][self._rows]
        return seen.transpose(1, 2)  # [n, H, W, D]


class SlotCache:
    """The block of memory.

    Args:
        shapes: of heads, from :func:`head_shapes`.
        rows: R.
        columns: C, the last one for what stands beyond a row's end.
        dtype, device: of the model.
    """

    def __init__(self, shapes: HeadShapes, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rows, self.columns = rows, columns

        def room(shape: tuple[int, int]) -> torch.Tensor:
            # Zeros: what is masked must still be a number.
            return torch.zeros(rows + 1, columns, *shape, dtype=dtype, device=device)

        self.keys = [room(key) for key, _ in shapes]
        self.values = [room(value) for _, value in shapes]

    @property
    def spare_row(self) -> int:
        """The row for what pads a pass."""
        return self.rows

    def put(self, row: int, states: LayerStates) -> None:
        """Begin a row with the keys and values of its first positions, [1, H, T, D] a layer."""
        for number, (keys, values) in enumerate(states):
            for held, new in ((self.keys[number], keys), (self.values[number], values)):
                held[row, : new.shape[2]] = new[0].transpose(0, 1)

    def states(self, row: int, stop: int) -> LayerStates:
        """A copy of a row's first `stop` columns: [1, H, stop, D] a layer."""
        pairs = zip(self.keys, self.values, strict=True)
        return [
            (keys[row, :stop].transpose(0, 1)[None].clone(), values[row, :stop].transpose(0, 1)[None].clone())
            for keys, values in pairs
        ]


__all__ = ["PassCache", "SlotCache"]
