"""What a machine can do at most, the limits that every result is held against; and what a process holds of its memory.

In: a device and the precisions of interest. Out: a :class:`Machine`, in bytes and in operations a second; bytes that a
process held at most, and that are left; and amounts as people read them, such as "642 GFLOP" or "1.44 s".

Each limit is the best of several ways and repetitions. A matrix product counts two operations for each multiplication
and addition.

Legend: N rows, I inputs and O outputs of a matrix product.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from torch.nn.utils import skip_init

from flashsloth.errors import BenchmarkError
from flashsloth.kernels.capabilities import can_pack
from flashsloth.kernels.cpu_linear import PackedLinear

DEVICE_TYPES = ("cpu", "cuda")
MATRIX_SHAPES = {
    "cpu": ((729, 1152, 4304), (768, 2560, 10240), (2048, 2048, 2048)),
    "cuda": ((4096, 4096, 16384), (8192, 8192, 8192)),
}
"""(N, I, O) of the products tried: FlashSloth's own two largest layers, and square ones."""
READ_BYTES = {"cpu": 1 << 29, "cuda": 1 << 32}
"""What is read at once: far more than any cache holds."""
MOMENT_BYTES, MOMENT_READS = {"cpu": 1 << 28, "cuda": 1 << 31}, 5
"""What is read how often to see the bandwidth of a moment."""
READ_WIDTH = 1 << 14
"""I of the one-row product that reads a weight of `READ_BYTES`."""
WAY_SECONDS = 0.2
"""How long each way of doing a thing is repeated."""
CPU_INFO = Path("/proc/cpuinfo")
CPU_NAME_KEY = "model name"
PROC_STATUS, PROC_CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_HIGH_WATER = "5"
"""Written to `clear_refs`, it sets the high-water mark of the resident memory to the present size."""

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Machine:
    """A device and its measured limits.

    Attributes:
        name: of the processor or accelerator.
        device: as torch writes it, such as "cpu" or "cuda:0".
        cores: processor cores that this process may use; of an accelerator, its multiprocessors.
        memory_bytes: memory in all.
        read_bandwidth: bytes a second.
        matrix_rate: operations a second of a large matrix product, by precision ("bfloat16", "float32").
        torch: its version.
        transformers: its version.
    """

    name: str
    device: str
    cores: int
    memory_bytes: int
    read_bandwidth: float
    matrix_rate: dict[str, float]
    torch: str
    transformers: str

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Machine:
        """What `dataclasses.asdict` made.

        Raises:
            BenchmarkError: if a field is missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(stored):
            raise BenchmarkError(
                f"a machine has the fields {sorted(stored)}; expected {sorted(names)}: measure it again"
            )
        return cls(**stored)


def measure_machine(device: torch.device, dtypes: Sequence[torch.dtype]) -> Machine:
    """Measure a device; takes about five seconds.

    Args:
        device: a processor or a CUDA device.
        dtypes: the precisions whose matrix rate is wanted.

    Raises:
        BenchmarkError: for another kind of device.
    """
    if device.type not in DEVICE_TYPES:
        raise BenchmarkError(f"device is {str(device)!r}; expected one of {', '.join(DEVICE_TYPES)}")
    with torch.no_grad():
        rates = {str(dtype).removeprefix("torch."): measure_matrix_rate(device, dtype) for dtype in dtypes}
        bandwidth = measure_read_bandwidth(device)
    return Machine(
        **describe_device(device),
        device=str(device),
        read_bandwidth=bandwidth,
        matrix_rate=rates,
        torch=torch.__version__,
        transformers=importlib.metadata.version("transformers"),
    )


def measure_matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest way to the fastest of `MATRIX_SHAPES`."""
    best = 0.0
    for rows, inputs, outputs in MATRIX_SHAPES[device.type]:
        states = torch.randn(rows, inputs, device=device).to(dtype)  # [N, I]
        for product in linear_ways(nn.Linear(inputs, outputs, bias=False, device=device, dtype=dtype)):
            best = max(best, 2 * rows * inputs * outputs / best_seconds(product, states, device))
    return best


def measure_read_bandwidth(device: torch.device) -> float:
    """Bytes a second of the fastest way to read `READ_BYTES`: a sum, or a product of one row, as in decoding."""
    size = READ_BYTES[device.type]
    numbers = torch.ones(size // torch.float32.itemsize, device=device)
    seconds = best_seconds(torch.sum, numbers, device)
    del numbers
    outputs = size // (READ_WIDTH * torch.bfloat16.itemsize)
    row = torch.ones(1, READ_WIDTH, dtype=torch.bfloat16, device=device)  # [1, I]
    layer = skip_init(nn.Linear, READ_WIDTH, outputs, bias=False, device=device, dtype=torch.bfloat16)
    nn.init.ones_(layer.weight)
    for product in linear_ways(layer):
        seconds = min(seconds, best_seconds(product, row, device))
    return size / seconds


def read_bandwidth_now(device: torch.device) -> float:
    """Bytes a second that the device reads at this moment, in a fifth of a second: on a machine that is shared with
    others it moves between one run and the next, and no counter of this system tells."""
    size = MOMENT_BYTES[device.type]
    numbers = torch.ones(size // torch.float32.itemsize, device=device)
    torch.sum(numbers)
    return size / min(_seconds(torch.sum, numbers, device) for _ in range(MOMENT_READS))


def linear_ways(layer: nn.Linear) -> Iterator[Product]:
    """Ways to multiply states [N, I] by a layer's weight [O, I]: torch's own, then, on a processor, a packed weight."""
    yield layer
    if layer.weight.device.type == "cpu" and can_pack(layer.weight.dtype):
        yield PackedLinear(layer)


def best_seconds(run: Product, argument: torch.Tensor, device: torch.device) -> float:
    """Seconds of the quickest of some repetitions, the first one, which warms up, left out."""
    run(argument)
    seconds: list[float] = []
    while not seconds or sum(seconds) < WAY_SECONDS:
        seconds.append(_seconds(run, argument, device))
    return min(seconds)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name, cores and memory of a device, as fields of :class:`Machine`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "name": properties.name,
            "cores": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
        }
    return {"name": cpu_name(), "cores": usable_cores(), "memory_bytes": psutil.virtual_memory().total}


def cpu_name() -> str:
    """What the processor calls itself."""
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == CPU_NAME_KEY and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seconds(run: Product, argument: torch.Tensor, device: torch.device) -> float:
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(torch.cuda.current_stream(device))
        run(argument)
        end.record(torch.cuda.current_stream(device))
        end.synchronize()
        return begin.elapsed_time(end) / 1e3  # the event counts milliseconds
    start = time.perf_counter()
    run(argument)
    return time.perf_counter() - start


def reset_peak(device: torch.device) -> None:
    """Forget the most that was held so far, such as what building a model took; where a system keeps it, it counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif PROC_CLEAR.exists():
        PROC_CLEAR.write_text(RESET_HIGH_WATER, encoding="ascii")


def peak_bytes(device: torch.device) -> int:
    """The most that was held since then: memory of this process, or what torch allocated on an accelerator."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if PROC_STATUS.is_file():  # psutil has no high-water mark on Linux, and getrusage counts that of the parent process
        return kibibytes(PROC_STATUS.read_text(encoding="utf-8"), "VmHWM")
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # on Windows
        return memory.peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available_bytes() -> int:
    """Memory of this machine that a new process could have."""
    return psutil.virtual_memory().available


def kibibytes(text: str, name: str) -> int:
    """The bytes in a line such as "VmHWM:   1234 kB"."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None, f"the kernel says nothing about {name}"
    return int(found[1]) * 1024


PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
"""Size and SI prefix, the largest first."""
DIGITS = 3
WHOLE = {"B", "FLOP"}
"""Units that come in whole pieces: no thousandths of them."""


def readable(amount: float, unit: str) -> str:
    """`amount` of `unit` with three digits and the prefix that suits it; 0 has none."""
    if amount == 0:
        return f"0 {unit}"
    smallest = 1.0 if unit in WHOLE else PREFIXES[-1][0]
    fitting = (entry for entry in PREFIXES if abs(amount) >= entry[0] and entry[0] >= smallest)
    size, prefix = next(fitting, next(entry for entry in PREFIXES if entry[0] == smallest))
    if unit == "s" and size > 1:  # nobody says kiloseconds
        size, prefix = 1.0, ""
    value = amount / size
    whole_digits = len(f"{abs(value):.0f}")
    return f"{value:,.{max(0, DIGITS - whole_digits)}f} {prefix}{unit}"
