"""Memory is told in bytes, and a peak is forgotten when it is to be."""

from __future__ import annotations

import pytest
import torch

from flashsloth.planning.machine import PROC_CLEAR, available_bytes, kibibytes, peak_bytes, reset_peak

CPU = torch.device("cpu")
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
