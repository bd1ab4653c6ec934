"""Recordings by key, numbers that are staged, and what is reported of those that could not be made."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from graph_engines import DEVICE

from flashsloth.inference.engine.cuda_graph import (
    CudaGraphs,
    Pass,
    Recordings,
    StagedInts,
    bucket,
    collection_paused,
    is_out_of_memory,
    multiple,
)


class CountedGraphs:
    """Replays by running, and counts."""

    def __init__(self) -> None:
        self.captured = self.released = 0
        self.failing: Exception | None = None

    def capture(self, run: Pass, static: Sequence[torch.Tensor]) -> Pass:
        self.captured += 1
        if self.failing is not None:
            raise self.failing
        return run

    def release(self) -> None:
        self.released += 1


def test_a_key_is_recorded_once_and_found_again() -> None:
    graphs = CountedGraphs()
    recordings = Recordings(graphs)
    value = torch.arange(3)
    for _ in range(2):
        [output] = recordings.run("a", lambda: (value,), [])
        assert output is value
    recordings.run("b", lambda: (value + 1,), [])
    assert graphs.captured == recordings.counts.captured == len(recordings) == 2
    assert "a" in recordings
    recordings.clear()
    assert (len(recordings), graphs.released, recordings.counts.captured) == (0, 1, 2)


def test_memory_that_is_short_drops_recordings_and_refuses_only_that_key() -> None:
    graphs = CountedGraphs()
    recordings = Recordings(graphs)
    recordings.run("kept", lambda: (), [])
    graphs.failing = RuntimeError("CUDA error: out of memory")
    for _ in range(2):
        assert recordings.run("large", lambda: (torch.ones(1),), [])[0] == 1
    assert graphs.captured == 2
    assert (recordings.counts.out_of_memory, len(recordings), graphs.released) == (1, 0, 1)
    graphs.failing = None
    recordings.run("kept", lambda: (), [])
    assert "kept" in recordings
    assert recordings.counts.degraded


def test_after_any_other_failure_passes_run_as_they_are() -> None:
    graphs = CountedGraphs()
    graphs.failing = ValueError("no such thing")
    recordings = Recordings(graphs)
    for key in "abc":
        assert recordings.run(key, lambda: (torch.ones(1),), [])[0] == 1
    assert (graphs.captured, recordings.counts.failed) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        recordings.run("d", lambda: (torch.ones(1) * (1 // 0),), [])


def test_out_of_memory_is_known_by_class_by_words_and_behind_another_error() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert is_out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    hidden = RuntimeError("operation failed due to a previous error during capture")
    assert not is_out_of_memory(hidden)
    hidden.__context__ = torch.OutOfMemoryError()
    assert is_out_of_memory(hidden)


def test_staged_numbers_stand_in_one_place() -> None:
    staged = StagedInts(6, torch.device(DEVICE))
    place = staged.held.data_ptr()
    for numbers in ([1, 2, 3, 4], [7, 8]):
        staged.write(np.asarray(numbers))
    assert staged.held.tolist() == [7, 8, 3, 4, 0, 0]
    assert staged.held.data_ptr() == place


def test_no_garbage_is_collected_while_recording() -> None:
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_sizes_are_rounded_up() -> None:
    assert [bucket(count, (1, 2, 4)) for count in (1, 3, 4, 9)] == [1, 4, 4, 4]
    assert [multiple(count, 16) for count in (1, 16, 17)] == [16, 16, 32]


@pytest.mark.needs("cuda")
def test_a_graph_works_on_what_static_tensors_hold_now() -> None:
    static = torch.ones(4, device=DEVICE)
    recordings = Recordings(CudaGraphs(static.device))
    for value in (1.0, 2.0):
        static.fill_(value)
        [output] = recordings.run("double", lambda: (static * 2,), [static])
        assert output.tolist() == [2 * value] * 4
    assert recordings.counts.captured == 1
    recordings.run("asks", lambda: (static * float(static.sum()),), [static])
    assert recordings.counts.failed == 1
