"""Processes that prepare batches, each at the end of a socket of its own; one that dies is replaced.

In: what makes a batch, and which batches are wanted, in order. Out: the batches, in that order. What a batch holds
depends on its samples alone, so a run whose workers died learns to the last bit what it would have learned.

torch's own workers hand batches over in shared memory, which hangs where /dev/shm is small (64 MB in a container),
give up when one of them dies, and while one is waited for nobody hears a signal. Here nothing lies in shared memory, so
little can be killed that others need: a socket ends with the process that wrote to it.

A thread for each worker asks it for a batch and reads its answer, so that it goes on to the next one while the device
computes. Only who waits for batches starts processes: a fork in the midst of a step could copy a lock that is held.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import queue
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from flashsloth.errors import FlashSlothError
from flashsloth.training.data.worker_process import affordable, receive, send, work

logger = logging.getLogger(__name__)

Numbers = Sequence[int]
AHEAD = 2
"""Batches that are asked for, for each worker, before the first one is taken."""
ATTEMPTS = 3
"""Workers that may die of the same batch."""
POLL_SECONDS = 0.2
"""How long a signal waits to be heard while a batch is waited for."""
PATIENCE_SECONDS = 1200.0
NUMBERS_SHOWN = 8
_REMEDY = (
    "a system that is short of memory kills them (see `dmesg`); use fewer workers, a smaller micro_batch_size, or free "
    "memory"
)


class DataWorkerError(FlashSlothError, ValueError):
    """Batches cannot be had: workers die of the same one, or do not answer."""

    exit_code = 1


class StoppedWaiting(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop while it waited for a batch."""


class _Task:
    """A batch that was asked for; `answer` is the batch, or the error that it came to, once `done` is set."""

    def __init__(self, samples: Numbers) -> None:
        self.samples, self.deaths, self.is_wanted = samples, 0, True
        self.answer: Any = None
        self.done = threading.Event()


class _Worker(threading.Thread):
    """A worker, as the process that it works for knows it: a thread that ends when its process does.

    Attributes:
        task: what it prepares; None while it has nothing to do.
    """

    def __init__(
        self, number: int, process: Any, channel: socket.socket, tasks: queue.SimpleQueue, pinned: bool
    ) -> None:
        super().__init__(name=f"data worker {number}", daemon=True)
        self.process, self.channel, self.tasks, self.pinned = process, channel, tasks, pinned
        self.task: _Task | None = None

    def run(self) -> None:
        stream = self.channel.makefile("rwb")
        while (task := self.tasks.get()) is not None:
            if not task.is_wanted:
                continue
            if not self.process.is_alive():  # it died with nothing to do
                self.tasks.put(task)
                return
            self.task = task
            try:
                send(stream, task.samples)
                task.answer = receive(stream, self.pinned)
            except (EOFError, OSError):
                return
            except Exception as error:  # raised where the batch is waited for
                task.answer = error
            self.task = None
            task.done.set()

    def __str__(self) -> str:
        return f"{self.name} (process {self.process.pid})"


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
        make: Callable[[Any], Any],
        workers: int,
        *,
        patience: float = PATIENCE_SECONDS,
        pinned: bool = False,
        is_asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.make, self.patience, self.pinned, self.is_asked_to_stop = make, patience, pinned, is_asked_to_stop
        self._context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._asked: deque[_Task] = deque()
        """In the order in which they are wanted, the first one not taken yet."""
        self._workers: list[_Worker] = []
        self._count = 0
        for _ in range(affordable(workers)):
            if not self._start():
                break
        for worker in self._workers:  # once all are forked: a process that has threads had better not
            worker.start()
        if self._workers:
            # before multiprocessing's own end, which asks workers to end and would wait for ever: they ignore it
            multiprocessing.util.Finalize(self, _kill, (self._workers,), exitpriority=100)

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
                if self.is_asked_to_stop():
                    raise StoppedWaiting
                yield self.make(samples)
            return
        for task in self._asked:  # of an iterator that nobody reads any more
            task.is_wanted = False
        self._asked.clear()
        self._ask(left)
        while self._asked:
            answer = self._take(self._asked[0])
            self._asked.popleft()
            self._ask(left)  # at once: the caller may take long to come back
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def close(self) -> None:
        """End all workers."""
        for _ in self._workers:
            self._tasks.put(None)
        _kill(self._workers)
        for worker in self._workers:
            worker.join()
            worker.channel.close()
        self._workers.clear()

    def _start(self) -> bool:
        """One more worker, if the system lets us have it."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return self._refused(error)
        is_forked = self._context.get_start_method() == "fork"
        inherited = [*(worker.channel for worker in self._workers), ours] if is_forked else []
        process: Any = self._context.Process(target=work, args=(theirs, inherited, self.make), daemon=True)
        try:
            process.start()
        except OSError as error:
            ours.close()
            return self._refused(error)
        finally:
            theirs.close()
        self._workers.append(_Worker(self._count, process, ours, self._tasks, self.pinned))
        self._count += 1
        return True

    def _refused(self, error: OSError) -> bool:
        left = f"{len(self._workers)} of them" if self._workers else "none, batches are made by the run itself"
        logger.warning("a data worker could not be started (%s): going on with %s", error.strerror, left)
        return False

    def _ask(self, left: Iterator[Numbers]) -> None:
        """Have all workers busy."""
        while len(self._asked) < AHEAD * len(self._workers) and (samples := next(left, None)) is not None:
            self._asked.append(_Task(samples))
            self._tasks.put(self._asked[-1])

    def _take(self, task: _Task) -> Any:
        """The answer to a task, once it is there."""
        end = time.monotonic() + self.patience
        while not task.done.wait(POLL_SECONDS):
            if self.is_asked_to_stop():
                raise StoppedWaiting
            for worker in [worker for worker in self._workers if not worker.is_alive()]:
                self._replace(worker)
            if time.monotonic() > end:
                self._give_up(task)
        return task.answer

    def _replace(self, worker: _Worker) -> None:
        """Have another worker do what one that is gone was asked for."""
        worker.process.join()
        worker.channel.close()
        self._workers.remove(worker)
        how, task = _how_it_ended(worker.process.exitcode), worker.task
        if task is not None:
            task.deaths += 1
            if task.deaths == ATTEMPTS:
                raise DataWorkerError(
                    f"{ATTEMPTS} data workers were {how} one after the other, each while it prepared the batch of "
                    f"{_named(task.samples)}: {_REMEDY}"
                )
        logger.warning("%s was %s: another one does its work, and nothing is lost", worker, how)
        if self._start():
            self._workers[-1].start()
        if not self._workers:
            raise DataWorkerError(f"all data workers were {how}, and no other could be started: {_REMEDY}")
        if task is not None:
            self._tasks.put(task)

    def _give_up(self, task: _Task) -> None:
        busy = [(worker, worker.task) for worker in self._workers if worker.task is not None]
        busy.sort(key=lambda pair: pair[1] is not task)  # who prepares it first, or who keeps it from being prepared
        worker, prepared = (busy or [(self._workers[0], task)])[0]
        raise DataWorkerError(
            f"{worker} has not answered for {self.patience:g} s: it prepares the batch of "
            f"{_named(prepared.samples)}, perhaps from a disk or a server that hangs; see to that, or raise "
            f"worker_timeout"
        )


def _kill(workers: list[_Worker]) -> None:
    """By number: they ignore what asks."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"lost, with exit code {code}"


def _named(samples: Numbers) -> str:
    more = f" and {len(samples) - NUMBERS_SHOWN} more" if len(samples) > NUMBERS_SHOWN else ""
    return f"samples {', '.join(map(str, samples[:NUMBERS_SHOWN]))}{more} of the data"
