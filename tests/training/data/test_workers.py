"""Workers that die, hang or cannot be had change nothing of what is learned, and never keep a run from ending."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flashsloth.training.data import BadSampleError, DataError, TooManyBadSamplesError
from flashsloth.training.data.worker_process import FILES_LEFT, FILES_PER_WORKER, affordable
from flashsloth.training.data.workers import DataWorkerError, StoppedWaiting, WorkerPool

WANTED = [[number, number + 1] for number in range(0, 40, 2)]


def make(samples: list[int]) -> dict[str, Any]:
    return {"samples": samples, "pixels": torch.full((len(samples), 1000, 100), float(samples[0])), "by": os.getpid()}


def numbers(batches: Iterator[Any]) -> list[list[int]]:
    return [batch["samples"] for batch in batches]


def children() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_batches_come_in_order_and_pools_end(count: int) -> None:
    before = children()
    pool = WorkerPool(make, count)
    first, second = list(pool.batches(WANTED)), list(pool.batches(WANTED[:5]))
    assert [batch["samples"] for batch in first] == WANTED
    assert all(bool((batch["pixels"] == batch["samples"][0]).all()) for batch in first)
    assert [batch["samples"] for batch in second] == WANTED[:5]
    makers = {batch["by"] for batch in first}
    assert makers == {os.getpid()} if count == 0 else len(makers) <= count and os.getpid() not in makers
    pool.close()
    assert children() == before


def test_an_iterator_that_is_given_up_leaves_nothing_to_the_next() -> None:
    pool = WorkerPool(make, 2)
    given_up = pool.batches(WANTED)
    assert next(given_up)["samples"] == WANTED[0]
    assert numbers(pool.batches(WANTED[10:])) == WANTED[10:]
    pool.close()


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    pool = WorkerPool(make, 2)
    batches = pool.batches(WANTED)
    found = [next(batches)]
    os.kill(found[0]["by"], signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        found += list(batches)
    assert [batch["samples"] for batch in found] == WANTED
    assert "was killed by SIGKILL: another one does its work, and nothing is lost" in caplog.text
    pool.close()


class Deadly:
    """Dies of the batch that holds a sample, as often as told; a folder counts."""

    def __init__(self, folder: Path, sample: int, times: int) -> None:
        self.folder, self.sample, self.times = folder, sample, times

    def __call__(self, samples: list[int]) -> dict[str, Any]:
        if self.sample in samples and len(list(self.folder.iterdir())) < self.times:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return make(samples)


def test_all_workers_may_die_while_nobody_waits_for_them() -> None:
    pool = WorkerPool(make, 2)
    assert numbers(pool.batches(WANTED[:2])) == WANTED[:2]
    for worker in pool._workers:
        worker.process.kill()
        worker.process.join()
    assert numbers(pool.batches(WANTED)) == WANTED
    pool.close()


def test_a_batch_that_kills_two_workers_may_yet_be_made(tmp_path: Path) -> None:
    pool = WorkerPool(Deadly(tmp_path, 8, 2), 2)
    assert numbers(pool.batches(WANTED)) == WANTED
    pool.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_batch_that_kills_three_workers_is_named(tmp_path: Path) -> None:
    pool = WorkerPool(Deadly(tmp_path, 8, 99), 1)
    batches = pool.batches(WANTED)
    assert [next(batches)["samples"] for _ in range(4)] == WANTED[:4]
    with pytest.raises(
        DataWorkerError,
        match=r"3 data workers were killed by SIGKILL .* prepared the batch of samples 8, 9 " r"of .*workers",
    ):
        next(batches)
    pool.close()


def hang(samples: list[int]) -> dict[str, Any]:
    if 4 in samples:
        time.sleep(3600)
    return make(samples)


def test_a_worker_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    pool = WorkerPool(hang, 2, patience=1.0)
    batches = pool.batches(WANTED)
    assert [next(batches)["samples"] for _ in range(2)] == WANTED[:2]
    with pytest.raises(
        DataWorkerError, match=r"data worker \d \(process \d+\) has not answered " r"for 1 s: .*samples 4, 5"
    ):
        next(batches)
    pool.close()
    assert children() == before


def test_a_stop_is_heard_while_a_worker_hangs() -> None:
    asked = []
    pool = WorkerPool(hang, 1, is_asked_to_stop=lambda: bool(asked))
    batches = pool.batches(WANTED)
    assert [next(batches)["samples"] for _ in range(2)] == WANTED[:2]
    asked.append(True)
    with pytest.raises(StoppedWaiting):
        next(batches)
    pool.close()


def test_workers_leave_signals_to_the_run() -> None:
    pool = WorkerPool(make, 1)
    batches = pool.batches(WANTED)
    worker = next(batches)["by"]
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker, number)
    assert {batch["by"] for batch in batches} == {worker}
    pool.close()


class TwoArgumentsError(Exception):
    """Cannot be pickled: its constructor takes more than its message."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def fail(samples: list[int]) -> Any:
    kinds: list[Exception] = [
        TooManyBadSamplesError("3 of 4 samples are bad"),
        BadSampleError("too long", "too_long"),
        TwoArgumentsError("no", "luck"),
    ]
    raise kinds[samples[0]]


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (0, TooManyBadSamplesError, "3 of 4 samples are bad"),
        (1, DataError, "too long"),
        (2, RuntimeError, "TwoArgumentsError: no luck"),
    ],
)
def test_errors_of_a_worker_are_what_they_were(number: int, kind: type[Exception], message: str) -> None:
    pool = WorkerPool(fail, 1)
    with pytest.raises(kind) as found:
        next(pool.batches([[number]]))
    pool.close()
    assert str(found.value) == message
    if kind is not RuntimeError:
        assert "in fail" in found.value.__notes__[0]


def test_workers_that_the_system_refuses_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = WorkerPool(make, 0)
    process = pool._context.Process
    started: list[Any] = []
    most = [2]

    class Refused(process):  # type: ignore[misc, valid-type]
        def start(self) -> None:
            if len(started) == most[0]:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            started.append(self)
            super().start()

    monkeypatch.setattr(type(pool._context), "Process", Refused)
    for most[0], words in (
        (2, "going on with 2 of them"),
        (0, "going on with none, batches are made by the run itself"),
    ):
        started.clear()
        caplog.clear()
        pool = WorkerPool(make, 4)
        assert numbers(pool.batches(WANTED)) == WANTED
        assert f"a data worker could not be started (Resource temporarily unavailable): {words}" in caplog.text
        pool.close()


def test_as_many_workers_as_there_may_be_open_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else FILES_LEFT
    soft, hard = used + FILES_LEFT + 5 * FILES_PER_WORKER + 1, used + FILES_LEFT + 21
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, wanted: limits.append(wanted))
    assert affordable(4) == 4
    assert limits == [(soft, hard)]
    assert 8 <= affordable(8) + 1 <= 9  # the soft limit is raised as far as they need
    assert limits[-1][0] > soft
    assert affordable(100) in (9, 10)
    assert limits[-1] == (hard, hard)
    assert "data workers instead of 100: a process may have" in caplog.text
