"""Passes recorded as CUDA graphs: hundreds of small operations that are then started all at once.

In: functions of tensors that never move. Out: the same functions, replayed; or run as they are, where one is not
recorded.

    CudaGraphs    records, on one device, with its own stream and its own pool of memory
    Recordings    recorded passes by key, and what became of those that could not be recorded
    StagedInts    whole numbers that a recording reads, sent to the device in one copy

A recording reads and writes memory at the addresses that it was made with, so who runs one

1. writes what is new into tensors that are there for good, and names all it depends on but their contents in its key;
2. gets the output in the same memory each time: it is to be used, or copied, before the same pass runs again.

One thread at a time runs and records: everything here happens under `Recordings.lock`, and everything that any device
of the process records under `CAPTURE`.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

logger = logging.getLogger(__name__)

CAPTURE = threading.Lock()
"""Held while a graph is recorded: CUDA allows a process no two at once that might meet."""
WARM_UP_RUNS = 2
"""Before a recording: libraries choose their kernels, and allocate memory, when they are first called."""
SHOWN_CAUSE_CHARACTERS = 300
OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED")
"""What errors say that are none of torch's own."""

Tensors = tuple[torch.Tensor, ...]
Pass = Callable[[], Tensors]
"""What is recorded: it reads and writes static tensors and weights alone, asks the device nothing, and does the same
when it is run twice."""


class Graphs(Protocol):
    """What records passes on one device."""

    def capture(self, run: Pass, static: Sequence[torch.Tensor]) -> Pass:
        """Record a pass.

        Args:
            run: the pass.
            static: the tensors that it reads or writes, weights aside; they stay where they are.

        Returns:
            What runs it again on what the static tensors then hold; each time its output is in the same memory.

        Raises:
            RuntimeError: if it cannot be recorded.
        """
        ...

    def release(self) -> None:
        """Free memory of recordings that are not held any more."""
        ...


class CudaGraphs:
    """Records CUDA graphs.

    Args:
        device: all of whose work one thread starts.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None  # torch's own handle

    def capture(self, run: Pass, static: Sequence[torch.Tensor]) -> Pass:
        """See :class:`Graphs`."""
        with CAPTURE, collection_paused(), torch.cuda.device(self._device):
            if self._stream is None:
                self._stream = torch.cuda.Stream(self._device)
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            current = torch.cuda.current_stream(self._device)
            self._stream.wait_stream(current)
            try:
                with torch.cuda.stream(self._stream):
                    for _ in range(WARM_UP_RUNS):
                        run()
            finally:
                current.wait_stream(self._stream)  # it writes what others read
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):  # other threads may open pictures and pin memory meanwhile
                output = run()

        def replay() -> Tensors:
            with torch.cuda.device(self._device):
                graph.replay()
            return output

        return replay

    def release(self) -> None:
        """See :class:`Graphs`."""
        self._pool = None  # a pool is not used again once all its graphs are gone
        with torch.cuda.device(self._device):
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


@dataclass
class RecordingCounts:
    """What became of recordings.

    Attributes:
        captured: passes that have been recorded, those that were dropped again included: a timed run, in which it may
            not change, compares it.
        out_of_memory: recordings for which there was no memory; each pass of them runs as it is.
        failed: recordings that failed in another way. After the first, nothing is recorded any more.
    """

    captured: int = 0
    out_of_memory: int = 0
    failed: int = 0

    @property
    def degraded(self) -> bool:
        """Whether passes run slower than they should, since they could not be recorded."""
        return bool(self.out_of_memory or self.failed)


class Recordings:
    """Recorded passes by key.

    Args:
        graphs: of the device.

    Attributes:
        counts: what became of them.
        lock: held while a pass runs; hold it where inputs are written before, or outputs are read after.
    """

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._replays: dict[Hashable, Pass] = {}
        self._refused: set[Hashable] = set()
        self.counts = RecordingCounts()
        self.lock = threading.RLock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._replays

    def __len__(self) -> int:
        return len(self._replays)

    def run(self, key: Hashable, run: Pass, static: Sequence[torch.Tensor]) -> Tensors:
        """A pass's output: of its recording, which is made first if there is none; run as it is where there cannot be.

        Args:
            key: equal only for the same operations on tensors of the same shapes at the same addresses.
            run, static: see :meth:`Graphs.capture`.
        """
        with self.lock:
            replay = self._replays.get(key) or self._record(key, run, static)
            return run() if replay is None else replay()

    def clear(self) -> None:
        """Drop all, and their memory."""
        with self.lock:
            self._replays.clear()
            self._graphs.release()

    def _record(self, key: Hashable, run: Pass, static: Sequence[torch.Tensor]) -> Pass | None:
        if self.counts.failed or key in self._refused:
            return None
        try:
            replay = self._graphs.capture(run, static)
        except Exception as error:  # a pass that fails by itself fails again, and raises, when it runs as it is
            cause = f"{type(error).__name__}: {' '.join(str(error).split())[:SHOWN_CAUSE_CHARACTERS]}"
            short = is_out_of_memory(error)
        else:
            self.counts.captured += 1
            self._replays[key] = replay
            return replay
        self._fail(key, cause, short)  # when the error is gone, whose traceback holds what the capture has made
        return None

    def _fail(self, key: Hashable, cause: str, short_of_memory: bool) -> None:
        """Drop recordings where memory is short, and never record this pass; after any other failure record nothing."""
        if not short_of_memory:
            self.counts.failed += 1
            logger.warning(
                "%s cannot be recorded as a CUDA graph, so everything runs slower from now on: %s", key, cause
            )
            return
        self.counts.out_of_memory += 1
        self._refused.add(key)
        logger.warning("no memory to record %s as a CUDA graph, so it runs slower: %s", key, cause)
        self.clear()


class Watchable(nn.Module):
    """Calls what it is given: hooks on it are called around a pass, since within a replay none are."""

    def forward(self, run: Callable[..., Tensors], *given: Any) -> Tensors:
        """What `run` makes of what is given."""
        return run(*given)


class StagedInts:
    """Whole numbers on a device, in one place for good; each time all that is new comes in one copy.

    Args:
        size: how many at most.
        device: where.

    Attributes:
        held: int64 [size], on the device.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        on_cuda = device.type == "cuda"
        self.held = torch.zeros(size, dtype=torch.long, device=device)
        self._host = torch.zeros(size, dtype=torch.long, pin_memory=on_cuda)
        self._device = device
        self._sent: torch.cuda.Event | None = None
        if on_cuda:
            with torch.cuda.device(device):
                self._sent = torch.cuda.Event()

    def write(self, numbers: np.ndarray) -> None:
        """Let `numbers`, int64 [at most size], stand first; nothing is waited for but the copy before."""
        count = len(numbers)
        if self._sent is None:
            self.held[:count] = torch.from_numpy(numbers)
            return
        self._sent.synchronize()
        self._host.numpy()[:count] = numbers
        with torch.cuda.device(self._device):
            self.held[:count].copy_(self._host[:count], non_blocking=True)
            self._sent.record()


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was short: torch says so by a class, CUDA and cuBLAS in words; ending a capture may hide it."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection: one that frees a graph while another is recorded spoils the recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def bucket(count: int, sizes: Sequence[int]) -> int:
    """The smallest of `sizes`, ascending, that holds `count`; the last if none does."""
    return next((size for size in sizes if size >= count), sizes[-1])


def multiple(count: int, step: int) -> int:
    """`count` rounded up to a multiple of `step`."""
    return -(-count // step) * step
