"""How much memory a process held at most, and how much is left.

In: a device. Out: bytes: on a processor the resident set's high-water mark, on an accelerator what torch allocated.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROC_STATUS, PROC_CLEAR, PROC_MEMORY = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")
RESET_HIGH_WATER = "5"
"""What `clear_refs` wants to hear to forget the high-water mark so far."""
KIB = 1024


def reset_peak(device: torch.device) -> None:
    """Begin anew: what building a model took is not counted. Where that cannot be had, it is."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif PROC_CLEAR.exists():
        PROC_CLEAR.write_text(RESET_HIGH_WATER, encoding="ascii")


def peak_bytes(device: torch.device) -> int:
    """The most that was held since then."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    if PROC_STATUS.is_file():
        return kibibytes(PROC_STATUS.read_text(encoding="utf-8"), "VmHWM")
    import resource

    unit = 1 if sys.platform == "darwin" else KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes() -> int:
    """Memory of this machine that a new process could have."""
    if PROC_MEMORY.is_file():
        return kibibytes(PROC_MEMORY.read_text(encoding="utf-8"), "MemAvailable")
    import psutil

    return psutil.virtual_memory().available


def kibibytes(text: str, name: str) -> int:
    """The bytes in a line such as "VmHWM:   1234 kB"."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None, f"the kernel says nothing about {name}"
    return int(found[1]) * KIB
