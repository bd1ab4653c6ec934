"""Processes that prepare batches, each at the end of a socket of its own; one that dies is replaced.

In: what makes a batch, and which batches are wanted, in order. Out: the batches, in that order. What a batch holds
depends on its samples alone, so a run whose workers died learns to the last bit what it would have learned.

torch's own workers hand batches over in shared memory, which hangs where /dev/shm is small (64 MB in a container),
give up when one of them dies, and while one is waited for nobody hears a signal. Here nothing lies in shared memory, so
little can be killed that others need: a socket ends with the process that wrote to it.

A thread reads what workers send, so that they go on to their next batch while the device computes.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.util
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from flashsloth.errors import FlashSlothError
from flashsloth.training.data.worker_process import Failure, affordable, receive, send, work

logger = logging.getLogger(__name__)

Numbers = list[int]
AHEAD = 2
"""Batches that a worker is asked for before its first one is taken."""
ATTEMPTS = 3
"""Workers that may die of the same batch."""
POLL_SECONDS = 0.2
"""How long a signal waits to be heard while a batch is waited for."""
PATIENCE_SECONDS = 1200.0
NUMBERS_SHOWN = 8
_FORGOTTEN = -1
"""The number of a task whose answer nobody wants any more."""


class DataWorkerError(FlashSlothError, ValueError):
    """Batches cannot be had: workers die of the same one, or do not answer."""

    exit_code = 1


class StoppedWaiting(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop while it waited for a batch."""


@dataclass
class _Task:
    """A batch that was asked for."""

    number: int
    samples: Numbers
    deaths: int = 0


@dataclass
class _Worker:
    """A worker, as the process that it works for knows it."""

    number: int
    process: Any
    channel: socket.socket
    tasks: deque[_Task] = field(default_factory=deque)
    """Not answered yet; it works on the first."""
    is_gone: bool = False

    @property
    def wanted(self) -> int:
        """Batches that it was asked for and that somebody still waits for."""
        return sum(task.number != _FORGOTTEN for task in self.tasks)

    def __str__(self) -> str:
        return f"data worker {self.number} (process {self.process.pid})"


class WorkerPool:
    """Workers of one run.

    Args:
        make: makes a batch of sample numbers, in a worker.
        workers: how many; 0 to make batches here.
        patience: seconds after which a batch that is waited for is given up.
        pinned: have batches in page-locked memory, for an accelerator.
        is_asked_to_stop: looked at while a batch is waited for.
    """

    def __init__(
        self,
        make: Callable[[Numbers], Any],
        workers: int,
        *,
        patience: float = PATIENCE_SECONDS,
        pinned: bool = False,
        is_asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.make, self.patience, self.pinned, self.is_asked_to_stop = make, patience, pinned, is_asked_to_stop
        self._context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._changed = threading.Condition()
        """Held while `_answers`, or a worker's `tasks` and `is_gone`, are looked at or changed."""
        self._answers: dict[int, Any] = {}
        self._workers: list[_Worker] = []
        self._closing = False
        self._asked = 0
        self._count = 0
        for _ in range(affordable(workers)):
            if not self._start():
                break
        self._reader = threading.Thread(target=self._read, name="batches", daemon=True)
        if self._workers:
            # before multiprocessing's own end, which asks workers to end and would wait for ever: they are deaf to it
            self._end = multiprocessing.util.Finalize(self, _kill, (self._workers,), exitpriority=100)
            self._reader.start()

    def batches(self, wanted: Iterable[Numbers]) -> Iterator[Any]:
        """The wanted batches, in order. One such iterator at a time.

        Raises:
            StoppedWaiting: if the run was asked to stop; what was given so far is all that counts.
            DataWorkerError: if workers die of the same batch again and again, or do not answer.
            Exception: what making a batch raised.
        """
        left = iter(wanted)
        if not self._workers:
            for samples in left:
                yield self._made_here(samples)
            return
        self._forget()
        next_number = self._asked
        while True:
            all_asked = self._ask(left)
            if next_number == self._asked:
                if all_asked:
                    return
                self._mend()  # nobody was there to be asked
                continue
            answer = self._take(next_number)
            next_number += 1
            self._ask(left)  # at once: the caller may take long to come back
            if isinstance(answer, Failure):
                raise answer.error
            yield answer

    def close(self) -> None:
        """End all workers."""
        self._closing = True
        _kill(self._workers)
        if self._reader.is_alive():
            self._reader.join()
        for worker in self._workers:
            worker.channel.close()
        self._workers.clear()

    def _made_here(self, samples: Numbers) -> Any:
        if self.is_asked_to_stop():
            raise StoppedWaiting
        return self.make(samples)

    def _start(self) -> bool:
        """One more worker, if the system lets us have it."""
        ours: socket.socket | None = None
        try:
            ours, theirs = socket.socketpair()
            others = [worker.channel for worker in self._workers] + [ours]
            inherited = others if self._context.get_start_method() == "fork" else []
            process: Any = self._context.Process(target=work, args=(theirs, inherited, self.make), daemon=True)
            process.start()
        except OSError as error:
            if ours is not None:
                ours.close()
                theirs.close()
            logger.warning(
                "a data worker could not be started (%s): going on with %s", error.strerror, self._words(self._workers)
            )
            return False
        theirs.close()
        with self._changed:
            self._workers.append(_Worker(self._count, process, ours))
        self._count += 1
        return True

    @staticmethod
    def _words(workers: list[_Worker]) -> str:
        return f"{len(workers)} of them" if workers else "none, batches are made by the run itself"

    def _ask(self, left: Iterator[Numbers]) -> bool:
        """Have every worker busy, those first who have least to do; returns whether nothing is left to ask for."""
        while True:
            free = [worker for worker in self._workers if worker.wanted < AHEAD and not worker.is_gone]
            if not free:
                return False
            samples = next(left, None)
            if samples is None:
                return True
            self._give(min(free, key=lambda worker: worker.wanted), _Task(self._asked, samples))
            self._asked += 1

    def _give(self, worker: _Worker, task: _Task) -> None:
        with self._changed:
            worker.tasks.append(task)
        with contextlib.suppress(OSError):  # it is gone: found where its answer is waited for
            send(worker.channel, (task.number, task.samples))

    def _take(self, number: int) -> Any:
        """The answer to a task, once it is there."""
        end = time.monotonic() + self.patience
        while True:
            with self._changed:
                if number not in self._answers and not any(worker.is_gone for worker in self._workers):
                    self._changed.wait(POLL_SECONDS)
                if number in self._answers:
                    return self._answers.pop(number)
            if self.is_asked_to_stop():
                raise StoppedWaiting
            self._mend()
            if time.monotonic() > end:
                self._give_up(number)

    def _mend(self) -> None:
        for worker in [worker for worker in self._workers if worker.is_gone]:
            self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        """Have another worker do what one that is gone was asked for."""
        worker.process.join()
        with self._changed:
            self._workers.remove(worker)
        worker.channel.close()
        how = _how_it_ended(worker.process.exitcode)
        if worker.tasks:
            first = worker.tasks[0]
            first.deaths += 1
            if first.deaths == ATTEMPTS:
                raise DataWorkerError(
                    f"{ATTEMPTS} data workers were {how} one after the other, each while it prepared the batch of "
                    f"{_named(first.samples)}: {_REMEDY}"
                )
        logger.warning("%s was %s: another one does its work, and nothing is lost", worker, how)
        self._start()
        if not self._workers:
            raise DataWorkerError(f"all data workers were {how}, and no other could be started: {_REMEDY}")
        for task in worker.tasks:
            if task.number != _FORGOTTEN:
                self._give(min(self._workers, key=lambda other: other.wanted), task)

    def _give_up(self, number: int) -> None:
        for worker in self._workers:
            for task in worker.tasks:
                if task.number == number:
                    raise DataWorkerError(
                        f"{worker} has not answered for {self.patience:g} s: it prepares the batch of "
                        f"{_named(worker.tasks[0].samples)}, perhaps from a disk or a server that hangs; see to that, "
                        f"or raise worker_timeout"
                    )
        raise AssertionError(f"nobody was asked for batch {number}")

    def _forget(self) -> None:
        """What was asked for an iterator that nobody reads any more; answers that still come are dropped."""
        with self._changed:
            self._answers.clear()
            for worker in self._workers:
                for task in worker.tasks:
                    task.number = _FORGOTTEN

    def _read(self) -> None:
        """The thread: answers, as they come, and who is gone."""
        while not self._closing:
            there = {worker.channel: worker for worker in list(self._workers) if not worker.is_gone}
            for channel in wait(list(there), timeout=POLL_SECONDS) if there else _pause():
                worker = there[channel]  # type: ignore[index]
                try:
                    answer = receive(worker.channel, self.pinned)
                except (EOFError, OSError):
                    with self._changed:
                        worker.is_gone = True
                        self._changed.notify_all()
                    continue
                with self._changed:
                    task = worker.tasks.popleft()
                    if task.number != _FORGOTTEN:
                        self._answers[task.number] = answer
                    self._changed.notify_all()


_REMEDY = (
    "a system that is short of memory kills them (see `dmesg`); set a lower workers or micro_batch_size, or free memory"
)


def _kill(workers: list[_Worker]) -> None:
    """By number: they are deaf to what asks."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()


def _pause() -> list[Any]:
    time.sleep(POLL_SECONDS)
    return []


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"lost, with exit code {code}"


def _named(samples: Numbers) -> str:
    more = f" and {len(samples) - NUMBERS_SHOWN} more" if len(samples) > NUMBERS_SHOWN else ""
    return f"samples {', '.join(map(str, samples[:NUMBERS_SHOWN]))}{more} of the stage's data"
