"""Keys and values of the sequences that run: a row each, a position in the column of its number.

In: keys and values of a pass, and where they belong. Out: what the pass may attend to. Nothing is padded on the left,
and a query at position p sees every column up to p; what stands beyond is left over, or padding, and never read.

    row 0      system text, picture, question, answer so far ...| left over
    row 1      ...

    KVCache         the block of memory; it grows by rows and columns as needed, and rows can be moved and kept
    StaticKVCache   one that is made once and never moves, for passes that are recorded
    PassCache       where one pass reads and writes, as transformers' models take it

What stands in an unused row must still be finite: attention may read it, at a weight of 0.

Legend: R rows, n rows of a pass, t positions of a pass, H key heads, C columns, W visible columns, D head width.
"""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache

from flashsloth.model.generation import plain_cache
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

logger = logging.getLogger(__name__)

LayerStates = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, float [1, H, T, D] both; of several rows where that is said."""
HeadShapes = list[tuple[tuple[int, int], tuple[int, int]]]
"""(H, D) of the keys and of the values of each layer."""

COLUMN_STEP = 64
"""Columns are made in multiples of this: a block moves only when it is full."""


class KVCache:
    """The block of memory.

    Args:
        shapes: of heads, from :func:`head_shapes`.
        dtype, device: of the model.
    """

    def __init__(self, shapes: HeadShapes, dtype: torch.dtype, device: torch.device) -> None:
        self._shapes, self._dtype, self._device = shapes, dtype, device
        self.rows = self.columns = 0
        self.keys: list[torch.Tensor] = []  # [R, H, C, D] of each layer
        self.values: list[torch.Tensor] = []

    @property
    def position_bytes(self) -> int:
        """Memory of one position in all layers."""
        return sum(heads * width for layer in self._shapes for heads, width in layer) * self._dtype.itemsize

    def reserve(self, rows: int, columns: int, positions: float = math.inf) -> None:
        """Have at least so many rows and columns; what is held there stays.

        Rows and columns that were needed before are kept for the next ones, as long as all together are no more than so
        many positions. A layer at a time, so that no more than one is held twice.
        """
        if rows <= self.rows and columns <= self.columns:
            return
        columns = round_columns(columns)
        if max(rows, self.rows) * max(columns, self.columns) <= positions:
            rows, columns = max(rows, self.rows), max(columns, self.columns)
        kept, stop = min(rows, self.rows), min(columns, self.columns)
        self.rows, self.columns = kept, stop  # of every layer, should memory run out in their midst
        for layers, side in ((self.keys, 0), (self.values, 1)):
            for number, shapes in enumerate(self._shapes):
                heads, width = shapes[side]
                block = torch.zeros(rows, heads, columns, width, dtype=self._dtype, device=self._device)
                if number < len(layers):
                    block[:kept, :, :stop] = layers[number][:kept, :, :stop]
                    layers[number] = block
                else:
                    layers.append(block)
        self.rows, self.columns = rows, columns

    def release(self) -> None:
        """Free all memory."""
        self.keys, self.values, self.rows, self.columns = [], [], 0, 0

    def put(self, row: int, states: LayerStates) -> None:
        """Fill a row with the keys and values of its first positions."""
        for number, pair in enumerate(states):
            for held, new in zip((self.keys[number], self.values[number]), pair, strict=True):
                held[row, :, : new.shape[2]] = new[0]

    def copy(self, source: int, row: int, stop: int) -> None:
        """Fill a row with the first `stop` positions of another."""
        for held in (*self.keys, *self.values):
            held[row, :, :stop] = held[source, :, :stop]

    def states(self, row: int, stop: int) -> LayerStates:
        """A copy of a row's first `stop` positions."""
        pairs = zip(self.keys, self.values, strict=True)
        return [
            (keys[row : row + 1, :, :stop].clone(), values[row : row + 1, :, :stop].clone()) for keys, values in pairs
        ]

    def clean(self, row: int) -> None:
        """Zero a row in which NaN or infinity may stand."""
        for held in (*self.keys, *self.values):
            held[row].zero_()


class StaticKVCache(KVCache):
    """A block whose memory is taken once, at its first use, and never moves: what was recorded over it stays right.

    Rows and columns are views of it, few long rows or many short ones. It starts with as many rows as may be; a
    longer row than those have makes all rows longer and fewer, and more rows make all shorter.

    Args:
        shapes, dtype, device: as for :class:`KVCache`.
        positions: of all rows together, that there is memory for.
        most_rows: that may ever be needed.
        most_columns: that a row may ever need.
    """

    def __init__(
        self,
        shapes: HeadShapes,
        dtype: torch.dtype,
        device: torch.device,
        positions: int,
        most_rows: int,
        most_columns: int,
    ) -> None:
        super().__init__(shapes, dtype, device)
        self.most_rows = most_rows
        self.most_columns = round_columns(most_columns)
        self.positions = min(positions, most_rows * self.most_columns)
        self._usual_columns = self.positions // most_rows // COLUMN_STEP * COLUMN_STEP
        self.memory: list[list[torch.Tensor]] = []  # of keys, and of values: float [positions * H * D] of each layer

    def arrange(self, rows: int, columns: int, kept: int) -> None:
        """Have at least so many rows and columns, for which `positions` must suffice; the first `kept` rows stay."""
        if rows <= self.rows and columns <= self.columns:
            return
        assert rows <= self.most_rows
        assert rows * columns <= self.positions, "the scheduler admits no more"
        length = self._row_length(rows, columns)
        count = min(self.most_rows, self.positions // length)
        stop = min(length, self.columns)
        if not self.memory:
            self.memory = [[self._flat(shapes[side]) for shapes in self._shapes] for side in (0, 1)]
        for side, layers in enumerate((self.keys, self.values)):
            before = list(layers)
            layers.clear()
            for number, (shapes, memory) in enumerate(zip(self._shapes, self.memory[side], strict=True)):
                heads, width = shapes[side]
                moved = before[number][:kept, :, :stop].clone() if kept else None
                layers.append(memory[: count * heads * length * width].view(count, heads, length, width))
                if moved is not None:
                    layers[number][:kept, :, :stop] = moved
        self.rows, self.columns = count, length

    def reserve(self, rows: int, columns: int, positions: float = math.inf) -> None:
        """Nothing: whoever uses this block arranges it first."""
        assert rows <= self.rows
        assert columns <= self.columns

    def release(self) -> None:
        """Nothing: recordings read this memory."""

    def _row_length(self, rows: int, columns: int) -> int:
        """Columns of all rows, one of a few numbers wherever they fit."""
        length = max(self._usual_columns, COLUMN_STEP)
        while length < columns:
            length *= 2
        return min(length, self.most_columns, self.positions // rows)

    def _flat(self, shape: tuple[int, int]) -> torch.Tensor:
        heads, width = shape
        return torch.zeros(self.positions * heads * width, dtype=self._dtype, device=self._device)


class PassCache(Cache):
    """Where one pass writes, and what it attends to.

    Args:
        cache: the block.
        rows: the first row of the pass and how many there are, side by side; or int64 [n], their numbers, in which case
            what is attended to is a copy.
        columns: int64 [n, t], where each position is written; or an int, the first of t columns, the same for all rows.
        width: W.
    """

    def __init__(
        self, cache: KVCache, rows: tuple[int, int] | torch.Tensor, columns: torch.Tensor | int, width: int
    ) -> None:
        super().__init__(layers=[])
        self._cache, self._columns, self._width = cache, columns, width
        self._rows: slice | torch.Tensor
        if isinstance(rows, torch.Tensor):
            self._rows, self._row_index = rows, rows[:, None]  # [n, 1]
            return
        first, count = rows
        self._rows = slice(first, first + count)
        if isinstance(columns, torch.Tensor):
            self._row_index = torch.arange(first, first + count, device=columns.device)[:, None]  # [n, 1]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,  # transformers' signature
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [n, H, t, D]; returns what may be attended to, [n, H, W, D]."""
        keys = self._write(self._cache.keys[layer_idx], key_states)
        return keys, self._write(self._cache.values[layer_idx], value_states)

    def _write(self, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        if isinstance(self._columns, int):
            held[self._rows, :, self._columns : self._columns + new.shape[2]] = new
        else:
            held[self._row_index, :, self._columns] = new.transpose(1, 2)  # [n, t, H, D]
        return held[self._rows, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before the pass's, where they are the same in all rows."""
        return self._columns if isinstance(self._columns, int) else 0

    def get_mask_sizes(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Columns that are attended to, and the number of the first: transformers makes masks of them."""
        return self._width, 0


def causal_mask(columns: torch.Tensor, width: int) -> torch.Tensor:
    """What positions in `columns`, int64 [n, t], see: bool [n, 1, t, W]."""
    return (torch.arange(width, device=columns.device) <= columns[..., None])[:, None]


def round_columns(columns: int) -> int:
    """Columns that a cache makes where so many are needed."""
    return -(-columns // COLUMN_STEP) * COLUMN_STEP


@torch.no_grad()
def head_shapes(model: FlashSlothForConditionalGeneration) -> HeadShapes | None:
    """What each layer of the language model keeps for a position; None where it keeps anything but keys and values.

    A token is run to find out, for no two families of models say it in the same words: by a model of the same kind
    without weights, or by this one where such a model cannot be.
    """
    cache = plain_cache(model.config.text_config)
    if cache is None:
        return None
    language_model = model.model.language_model
    try:
        with torch.device("meta"):
            weightless = type(language_model)(copy.deepcopy(model.config.text_config))
        _run_token(weightless, model.model.cache_argument, cache)
    except Exception:  # a model of anyone's may ask its tensors for numbers
        logger.debug("%s cannot run without weights", type(language_model).__name__, exc_info=True)
        cache = DynamicCache(config=model.config.text_config)
        _run_token(language_model, model.model.cache_argument, cache)
    return [
        ((layer.keys.shape[1], layer.keys.shape[3]), (layer.values.shape[1], layer.values.shape[3]))
        for layer in cache.layers
    ]


def _run_token(language_model: Any, cache_argument: str, cache: DynamicCache) -> None:
    device = next(language_model.parameters()).device
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    language_model(input_ids=token, use_cache=True, **{cache_argument: cache})
