"""The machine's limits and a process's memory: figures are figures, and JSON brings them back."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flashsloth.errors import BenchmarkError
from flashsloth.kernels.capabilities import can_pack
from flashsloth.planning import machine
from flashsloth.planning.machine import (
    PROC_CLEAR,
    Machine,
    available_bytes,
    kibibytes,
    measure_machine,
    peak_bytes,
    reset_peak,
)

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that take no time; what is measured with them means nothing."""
    monkeypatch.setattr(machine, "MATRIX_SHAPES", {"cpu": ((8, 32, 64), (4, 16, 16))})
    monkeypatch.setattr(machine, "READ_BYTES", {"cpu": 1 << 14})
    monkeypatch.setattr(machine, "READ_WIDTH", 64)
    monkeypatch.setattr(machine, "WAY_SECONDS", 0.001)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_way_computes_the_same_product(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, states = nn.Linear(32, 48, bias=False, dtype=dtype), torch.randn(5, 32).to(dtype)
    with torch.no_grad():
        results = [way(states) for way in machine.linear_ways(layer)]
    assert len(results) == 1 + can_pack(dtype)
    for result in results:
        torch.testing.assert_close(result, F.linear(states, layer.weight))


def test_a_packed_way_is_left_out_where_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "can_pack", lambda _: False)
    assert len(list(machine.linear_ways(nn.Linear(4, 4)))) == 1


@pytest.mark.usefixtures("small")
def test_a_machine_is_measured_and_survives_json() -> None:
    found = measure_machine(CPU, [torch.float32, torch.bfloat16])
    assert set(found.matrix_rate) == {"float32", "bfloat16"}
    assert min(found.read_bandwidth, *found.matrix_rate.values()) > 0
    assert found.name
    assert found.cores >= 1
    assert found.memory_bytes > 1 << 28
    assert found.torch == torch.__version__
    assert Machine.from_dict(json.loads(json.dumps(dataclasses.asdict(found)))) == found


@pytest.mark.usefixtures("small")
def test_the_best_repetition_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.5, 0.25, 0.75])
    monkeypatch.setattr(machine, "_seconds", lambda *_: next(seconds))
    monkeypatch.setattr(machine, "WAY_SECONDS", 1.0)
    calls: list[torch.Tensor] = []

    def run(argument: torch.Tensor) -> torch.Tensor:
        calls.append(argument)
        return argument

    assert machine.best_seconds(run, torch.ones(1), CPU) == 0.25
    assert len(calls) == 1  # the one that warms up


@pytest.mark.usefixtures("small")
def test_the_rate_counts_two_operations_a_multiplication(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "best_seconds", lambda *_: 2.0)
    assert machine.measure_matrix_rate(CPU, torch.float32) == 2 * 8 * 32 * 64 / 2.0
    assert machine.measure_read_bandwidth(CPU) == (1 << 14) / 2.0


def test_other_devices_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="device is 'meta'; expected one of cpu, cuda"):
        measure_machine(torch.device("meta"), [torch.float32])


def test_a_damaged_machine_is_refused() -> None:
    fields = dict.fromkeys((field.name for field in dataclasses.fields(Machine)), 1)
    fields.pop("cores")
    with pytest.raises(BenchmarkError, match="measure it again"):
        Machine.from_dict(fields)


STATUS = "Name:\tpython\nVmPeak:\t  200 kB\nVmHWM:\t   1234 kB\nVmRSS:\t    9 kB\n"
LARGE = 1 << 27


def test_a_line_of_the_kernels() -> None:
    assert kibibytes(STATUS, "VmHWM") == 1234 * 1024


def test_some_memory_is_left() -> None:
    assert 0 < available_bytes() < 1 << 50


@pytest.mark.skipif(not PROC_CLEAR.exists(), reason="this kernel forgets no high-water mark")
def test_a_peak_is_seen_and_forgotten() -> None:
    reset_peak(CPU)
    before = peak_bytes(CPU)
    held = torch.ones(LARGE // 4)
    assert peak_bytes(CPU) >= before + LARGE // 2
    del held
    reset_peak(CPU)
    assert peak_bytes(CPU) < before + LARGE // 2
