"""Threads of OpenMP that wait in one thread, and make those of another sleep."""

from __future__ import annotations

import threading

import psutil
import pytest
import torch

from flashsloth.inference.engine.engine_thread import _gnu_openmp, compute_alone, release_idle_threads

without_gnu = pytest.mark.skipif(_gnu_openmp() is None, reason="torch computes with another OpenMP here")


@without_gnu
def test_a_threads_helpers_are_given_back_and_come_again() -> None:
    helpers: list[int] = []

    def compute() -> None:
        known = _thread_ids()  # those of other tests may end meanwhile
        torch.set_num_threads(3)
        try:
            for _ in range(2):
                torch.rand(1 << 20).exp_()
                helpers.append(len(_thread_ids() - known))
                release_idle_threads()
                helpers.append(len(_thread_ids() - known))
        finally:
            torch.set_num_threads(before)

    before = torch.get_num_threads()
    thread = threading.Thread(target=compute)  # a thread of its own has no helpers yet
    thread.start()
    thread.join()
    assert helpers == [2, 0, 2, 0]


def _thread_ids() -> set[int]:
    return {thread.id for thread in psutil.Process().threads()}


@without_gnu
def test_who_computes_alone_gets_no_helpers_and_leaves_others_theirs() -> None:
    helpers: set[int] = set()
    threads: list[int] = []

    def compute() -> None:
        compute_alone()
        before = _thread_ids()
        torch.zeros(1 << 20).add_(1)
        helpers.update(_thread_ids() - before)
        threads.append(torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
        assert (helpers, threads, torch.get_num_threads()) == (set(), [1], 3)
    finally:
        torch.set_num_threads(before)
