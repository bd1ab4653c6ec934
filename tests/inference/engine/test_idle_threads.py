"""Threads of OpenMP that wait in one thread, and make those of another sleep."""

from __future__ import annotations

import threading

import psutil
import pytest
import torch

from flashsloth.inference.engine.idle_threads import _gnu_openmp, give_back_idle_threads


@pytest.mark.skipif(_gnu_openmp() is None, reason="torch computes with another OpenMP here")
def test_a_threads_helpers_are_given_back_and_come_again() -> None:
    counts: list[int] = []

    def count() -> None:
        counts.append(psutil.Process().num_threads())

    def compute() -> None:
        torch.set_num_threads(3)
        try:
            count()
            for _ in range(2):
                torch.rand(1 << 20).exp_()
                count()
                give_back_idle_threads()
                count()
            give_back_idle_threads()
        finally:
            torch.set_num_threads(before)

    before = torch.get_num_threads()
    thread = threading.Thread(target=compute)  # a thread of its own has no helpers yet
    thread.start()
    thread.join()
    first, *rest = counts
    assert rest == [first + 2, first, first + 2, first]
