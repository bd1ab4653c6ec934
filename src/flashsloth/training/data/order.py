"""In which order an epoch takes its samples: a function of the seed, the epoch and the data's shape, of nothing else.

In: how many samples each source has, its weight, and which of them lie together. Out: int64 [K], sample numbers.

A source is an endless row of passes over its samples, each pass in an order of its own; an epoch takes the next
weight * N of that row. So at weight 0.5 two epochs see everything once, and at weight 2 each epoch sees it twice. The
sources are then mixed, each going on in its own order.

Where samples lie in blocks (shards, row groups), whole blocks are drawn, some at a time, and the samples of those are
mixed: reading stays within a few blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flashsloth.training.data.mixture import Joined

WINDOW_SAMPLES = 4096
"""Samples of blocks that are mixed with one another, at least (and of two blocks at least)."""
LEAST_BLOCKS = 2
_MIXING = 1 << 32
"""Tells the draw that mixes sources from those that order one: no source has this number."""


@dataclass(frozen=True)
class SourceShape:
    """What the order needs to know of a source.

    Attributes:
        samples: how many it has.
        weight: how often an epoch takes each.
        blocks: int64 [K], how many lie together, block after block; None where all are equally near.
    """

    samples: int
    weight: float = 1.0
    blocks: np.ndarray | None = None

    @property
    def taken(self) -> int:
        """Samples an epoch takes, at least one."""
        return max(1, round(self.samples * self.weight))


def shapes_of(data: Joined) -> list[SourceShape]:
    """The shapes of a stage's sources."""
    return [SourceShape(len(part), weight, part.blocks) for part, weight in zip(data.parts, data.weights, strict=True)]


def epoch_order(sources: list[SourceShape], seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """Sample numbers of an epoch, over all sources: int64 [K].

    Args:
        sources: in the recipe's order; the numbers of a source follow those of the one before.
        seed, epoch: what the order depends on.
        shuffle: False for source after source, each in its own order (a curriculum).
    """
    firsts = np.cumsum([0, *(source.samples for source in sources)])
    rows = [_taken(source, (seed, number), epoch, shuffle) + firsts[number] for number, source in enumerate(sources)]
    if not shuffle:
        return np.concatenate(rows)
    turns = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    turns = np.random.default_rng([seed, epoch, _MIXING]).permutation(turns)
    order = np.empty(len(turns), dtype=np.int64)
    for number, row in enumerate(rows):
        order[turns == number] = row
    return order


def _taken(source: SourceShape, key: tuple[int, int], epoch: int, shuffle: bool) -> np.ndarray:
    """What an epoch takes of one source: int64 [taken]."""
    first = epoch * source.taken
    last = first + source.taken
    passes = range(first // source.samples, (last - 1) // source.samples + 1)
    orders = [_one_pass(source, (*key, number)) if shuffle else np.arange(source.samples) for number in passes]
    start = first - passes[0] * source.samples
    return np.concatenate(orders)[start : start + source.taken]


def _one_pass(source: SourceShape, key: tuple[int, ...]) -> np.ndarray:
    """Every sample of a source once: int64 [samples]."""
    random = np.random.default_rng(list(key))
    if source.blocks is None:
        return random.permutation(source.samples)
    ends = source.blocks.cumsum()
    pieces: list[np.ndarray] = []
    window: list[np.ndarray] = []
    for block in random.permutation(len(source.blocks)):
        window.append(np.arange(ends[block] - source.blocks[block], ends[block]))
        if len(window) >= LEAST_BLOCKS and sum(map(len, window)) >= WINDOW_SAMPLES:
            pieces.append(random.permutation(np.concatenate(window)))
            window = []
    if window:
        pieces.append(random.permutation(np.concatenate(window)))
    return np.concatenate(pieces)


__all__ = ["SourceShape", "epoch_order", "shapes_of"]
