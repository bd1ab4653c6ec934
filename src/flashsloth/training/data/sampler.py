"""Which samples each optimizer step learns from, in which order, and which process takes which of them.

In: how many samples each source has, its weight, and which of them lie together. Out: micro-batches, one process's
after another's, as accelerate deals them:

    step 0                                           step 1
    [process 0][process 1][process 0][process 1]     [process 0] ...

What a step learns from depends on seed, epoch and `batch_size` alone: neither the number of processes nor the size of a
micro-batch changes it, so a run may go on with others. Every step is full (the last one is filled from the epoch's
beginning), so every process has equally many micro-batches of equal size, and none waits for another.

Grouped, a step has samples with pictures alone or without alone, and of like lengths: of some steps' worth of samples
at a time, each kind is sorted by length and cut into steps, which are then mixed. What is left over goes to the next
ones; at the end of an epoch it makes steps of both kinds. A process whose micro-batch has no picture while others have
some does the same work on a blank one (see `model/dummy_inputs.py`).

The order of an epoch depends on seed, epoch and the data's shape, on nothing else. A source is an endless row of passes
over its samples, each pass in an order of its own; an epoch takes the next weight * N of that row. So at weight 0.5 two
epochs see everything once, and at weight 2 each epoch sees it twice. The sources are then mixed, each going on in its
own order.

Where samples lie in blocks (shards, row groups), whole blocks are drawn, some at a time, and the samples of those are
mixed: reading stays within a few blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from flashsloth.training.data.mixture import Joined
from flashsloth.training.data.sample import Sizes

WINDOW_SAMPLES = 4096
"""Samples of blocks that are mixed with one another, at least (and of two blocks at least)."""
LEAST_BLOCKS = 2
_MIXING = 1 << 32
"""Tells the draw that mixes sources from those that order one: no source has this number."""
POOL_STEPS = 16
"""Steps that are sorted by length together: more make lengths more alike, fewer keep the order more random."""
BYTES_PER_TOKEN = 4
"""Of text: what lengths are estimated with, which needs to be right in proportion to pictures' tokens, no more."""
_GROUPING = 1 << 33
"""Tells the draw that mixes grouped steps from those of an order."""


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


def estimated_lengths(sizes: Sizes, tokens_per_picture: int) -> np.ndarray:
    """About how many tokens each sample has: int64 [N]."""
    return sizes.text_bytes // BYTES_PER_TOKEN + sizes.pictures * tokens_per_picture


class StepBatchSampler(Sampler[list[int]]):
    """The micro-batches of an epoch.

    Args:
        data: the stage's samples.
        seed: of the order.
        batch_size: samples a step, over all processes.
        micro_batch_size: samples a process holds at a time.
        processes: how many there are.
        shuffle: False for the data's own order.
        group_tokens: group by modality and length, a picture being this many tokens; None for no grouping.

    Attributes:
        batch_size: samples a micro-batch (the name that transformers and accelerate look for).

    Raises:
        ValueError: if a step cannot be divided.
    """

    drop_last = False

    def __init__(
        self,
        data: Joined,
        seed: int,
        batch_size: int,
        micro_batch_size: int,
        processes: int = 1,
        shuffle: bool = True,
        group_tokens: int | None = None,
    ) -> None:
        if batch_size % (micro_batch_size * processes):
            raise ValueError(
                f"batch_size {batch_size} is not a multiple of micro_batch_size {micro_batch_size} times {processes} "
                f"processes"
            )
        parts = zip(data.parts, data.weights, strict=True)
        self.shapes = [SourceShape(len(part), weight, part.blocks) for part, weight in parts]
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0
        self.step_size, self.batch_size, self.processes = batch_size, micro_batch_size, processes
        self.lengths: np.ndarray | None = None
        if group_tokens is not None:
            sizes = data.sizes()
            self.lengths = estimated_lengths(sizes, group_tokens)
            self.pictured = sizes.pictures > 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of."""
        self.epoch = epoch

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return -(-sum(shape.taken for shape in self.shapes) // self.step_size)

    def __len__(self) -> int:
        return self.steps * (self.step_size // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        together = self.batch_size * self.processes
        for step in self.epoch_steps(self.epoch):
            for start in range(0, self.step_size, together):
                for process in range(self.processes):
                    yield step[start : start + together][process :: self.processes].tolist()

    def epoch_steps(self, epoch: int) -> np.ndarray:
        """Samples of every step of an epoch: int64 [steps, batch_size]."""
        order = epoch_order(self.shapes, self.seed, epoch, self.shuffle)
        if self.lengths is not None:
            order = self._grouped(order, np.random.default_rng([self.seed, epoch, _GROUPING]))
        filled = np.resize(order, self.steps * self.step_size)  # what is missing is taken from the beginning
        return filled.reshape(self.steps, self.step_size)

    def _grouped(self, order: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The same samples, so that each `step_size` of them are alike."""
        size = self.step_size
        done: list[np.ndarray] = []
        left = [order[:0], order[:0]]
        for start in range(0, len(order), POOL_STEPS * size):
            pool = order[start : start + POOL_STEPS * size]
            steps: list[np.ndarray] = []
            for kind, mask in enumerate((self.pictured[pool], ~self.pictured[pool])):
                mine = np.concatenate([left[kind], pool[mask]])
                full = len(mine) // size * size
                steps.extend(self._by_length(mine[:full]).reshape(-1, size))
                left[kind] = mine[full:]
            done += [steps[number] for number in random.permutation(len(steps))]
        return np.concatenate([*done, self._by_length(left[0]), self._by_length(left[1])])

    def _by_length(self, samples: np.ndarray) -> np.ndarray:
        """The longest first; of equals, the one that came first."""
        assert self.lengths is not None
        return samples[np.argsort(-self.lengths[samples], kind="stable")]
