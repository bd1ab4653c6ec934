"""What ends a run from outside is said so, and nothing else is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import tiny_runs
import torch
from torch import distributed

from flashsloth.training.interruptions import OutageError, translate_errors


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
)
def test_a_full_device_names_what_helps(error: Exception) -> None:
    with (
        pytest.raises(OutageError, match=r"not enough memory for a step: lower micro_batch_size.*flashsloth plan"),
        translate_errors(),
    ):
        raise error


def test_a_process_that_is_gone_is_no_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "3")
    with (
        pytest.raises(OutageError, match=r"process 3 of 8 cannot reach another one.*--resume \(timed out\)"),
        translate_errors(),
    ):
        raise distributed.DistNetworkError("timed out")


def test_memory_that_a_worker_lacks_names_workers() -> None:
    with (
        pytest.raises(OutageError, match=r"not enough memory, here or in a data worker: set a lower workers"),
        translate_errors(),
    ):
        raise MemoryError


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), distributed.DistError("alone")])
def test_other_errors_stay_what_they_are(error: RuntimeError) -> None:
    with pytest.raises(type(error)) as found, translate_errors():
        raise error
    assert found.value is error


def test_who_is_left_says_it_in_one_line(tmp_path: Path) -> None:
    recipe = tiny_runs.write_recipe(tmp_path, tiny_runs.with_batch(tiny_runs.ALIGNMENT, steps=5000))
    run = tiny_runs.start(recipe, processes=2)
    run.wait_for_step(3)
    run.signal(signal.SIGKILL, ranks=(1,))
    assert run.end() == [1, -signal.SIGKILL]
    assert "error: process 0 of 2 cannot reach another one, which has probably died" in run.said()
    assert "Traceback" not in run.said()
