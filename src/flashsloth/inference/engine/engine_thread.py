"""The one thread that drives an engine, and what callers wait on.

    thread.submit(request) -> Reply        any thread; the engine's own starts with the first request
    for output in reply                    what the steps bring, until all of the request's answers have ended
    reply.abort()                          the rest is not wanted

The thread sleeps while there is nothing to do, and ends when the engine is dropped. What a step brings goes to a queue
of each request's own, so that a slow reader delays no other. If a step fails in a way that the engine does not handle,
every request that waits gets the error, and each later one at once.

Idle threads of OpenMP are released, so that they do not slow down the others: GNU's OpenMP, which torch computes with
on a processor, keeps helpers for each thread that ever ran something in parallel. Helpers spin for a moment before they
fall asleep; but where there are more of them in all than there are cores, they fall asleep at once, and waking them
takes longer than most operations of a step. So a thread that lets the engine's thread compute (loading a model has made
helpers for it) releases its own, as does the engine's when it is idle; they are made again with the next thing that it
runs in parallel. Threads that prepare pictures never have any.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from flashsloth.errors import EngineError
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.request import Request, RequestOutput

SOFT_PAUSE = 1
"""omp_pause_soft of OpenMP 5: what was set stays."""
IDLE_SECONDS = 1.0
"""After so long without work the thread's helpers are released."""
EXIT_SECONDS = 10.0
"""How long an operation may take that runs when the interpreter ends; beyond, the process is not held up."""
Result = TypeVar("Result")
Delivery = RequestOutput | EngineError


class Deliveries(Protocol):
    """Where outputs come in: a queue, or what hands them on. It must not wait, for the engine waits for it."""

    def put(self, item: Delivery, /) -> None:
        """Take in what a step brought for one answer, or why the engine has failed."""


class Reply:
    """What comes back for one request. Dropping it aborts the request.

    Args:
        thread: that answers.
        request_id: of the request.
        answers: how many answers it gets.
        deliveries: where outputs come in; None where several requests share that, and the reply is not read.
    """

    def __init__(
        self, thread: EngineThread, request_id: int, answers: int, deliveries: queue.SimpleQueue[Delivery] | None
    ) -> None:
        self.request_id = request_id
        self._running, self._deliveries = answers, deliveries
        self._abort = weakref.finalize(self, thread.abort, request_id)
        self._abort.atexit = False

    def __iter__(self) -> Generator[RequestOutput]:
        """Outputs as they come, the last of each answer with its end; who stops reading aborts.

        Raises:
            EngineError: if the engine has failed.
        """
        assert self._deliveries is not None
        try:
            while self._running:
                output = self._deliveries.get()
                if isinstance(output, EngineError):
                    self._running = 0
                    raise output
                self._running -= output.finish_reason is not None
                yield output
        finally:
            self.abort()

    def abort(self) -> None:
        """End what has not ended; it still comes with its end."""
        if self._running:
            self._abort()
        self.ended()

    def ended(self) -> None:
        """All has come: dropping the reply aborts nothing any more."""
        self._abort.detach()


class EngineThread:
    """Drives an engine, which no other thread may step meanwhile.

    Args:
        engine: to drive.

    Attributes:
        steps: that have ended.
        longest_step: of them, in seconds; what else the thread did between two steps counts as part of the next.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.steps, self.longest_step = 0, 0.0
        self._mailbox = _Mailbox()
        weakref.finalize(self, self._mailbox.close)

    def submit(self, request: Request, deliveries: Deliveries | None = None) -> Reply:
        """Let the engine answer a request.

        Args:
            request: to answer.
            deliveries: where outputs come in, if several requests share one; who gives it reads it.

        Raises:
            PromptError: as `Engine.add_request`.
            EngineError: if the engine has failed, or this process is a fork of the one in which it runs.
        """
        [reply] = self.submit_all([request], deliveries)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def submit_all(self, requests: Sequence[Request], deliveries: Deliveries | None = None) -> list[Reply | Exception]:
        """As :meth:`submit`, for several that may start in the same step; a request that cannot be is an error here."""
        replies: list[Reply | Exception] = []
        self.check()
        release_idle_threads()
        with self._mailbox.lock:
            self.check()
            self._wake()
            for request in requests:
                try:
                    replies.append(self._add(request, deliveries))
                except ValueError as error:
                    replies.append(error)
        return replies

    def run(self, function: Callable[[Engine], Result]) -> Result:
        """Have the engine's thread do something with its engine, between two steps.

        Raises:
            EngineError: if the engine has failed, or this process is a fork of the one in which it runs.
            Exception: what `function` raises.
        """
        done: Future[Result] = Future()

        def call() -> None:
            try:
                done.set_result(function(self.engine))
            except BaseException as error:  # the caller's own, or the interpreter ends
                done.set_exception(error)

        self.check()
        release_idle_threads()
        with self._mailbox.lock:
            self.check()
            self._wake()
            self._mailbox.calls.append((call, done))
        return done.result()

    def abort(self, request_id: int) -> None:
        """End a request's answers; a finalizer may call it, wherever it runs."""
        self.engine.abort(request_id)
        self._mailbox.wake.put(None)

    def deliver(self) -> bool:
        """Make a step and hand out what it brought; whether there is more to do."""
        started = time.monotonic()
        with self._mailbox.lock:  # whoever woke the thread has added all, or was interrupted
            while not self._mailbox.wake.empty():
                self._mailbox.wake.get()
        while self._mailbox.calls:
            call, _ = self._mailbox.calls.popleft()
            call()
        outputs = self.engine.step()
        self.longest_step = max(self.longest_step, time.monotonic() - started)
        self.steps += 1
        with self._mailbox.lock:  # a request is registered by then, or its caller was interrupted
            for output in outputs:
                self._mailbox.hand_out(output)
            for one in self.engine.scheduler:
                if one.request_id not in self._mailbox.receivers:
                    self.engine.abort(one.request_id)
        if outputs:
            time.sleep(0)  # who waits for them reads now: the next pass rarely lets go of the interpreter's lock
        return self.engine.has_work and not self._mailbox.closed

    def _add(self, request: Request, deliveries: Deliveries | None) -> Reply:
        request_id = self.engine.add_request(request)
        own: queue.SimpleQueue[Delivery] | None = queue.SimpleQueue() if deliveries is None else None
        receiver = deliveries if own is None else own
        assert receiver is not None
        self._mailbox.receivers[request_id] = _Receiver(receiver, request.answers)
        return Reply(self, request_id, request.answers, own)

    def _wake(self) -> None:
        """Have the thread check for work once the lock is free; start it if none was started."""
        self._mailbox.wake.put(None)
        if self._mailbox.driver is None:  # a caller interrupted here starts it again: the first to run drives
            _driven.add(self._mailbox)
            arguments = self._mailbox, weakref.ref(self)
            threading.Thread(target=_drive, args=arguments, name="flashsloth engine", daemon=True).start()

    def check(self) -> None:
        """Raise where requests cannot be answered.

        Raises:
            EngineError: see :meth:`submit`; and in the engine's own thread, which would wait for itself.
        """
        if self._mailbox.failure is not None:
            raise self._mailbox.failure
        if self._mailbox.driver is threading.current_thread():
            raise EngineError("the engine cannot answer within one of its own steps: a mask must not ask it")


@dataclass
class _Receiver:
    """Where a request's outputs go, and how many of its answers have not ended."""

    deliveries: Deliveries
    left: int


class _Mailbox:
    """What the thread and its callers share, and what outlives the engine for a moment."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # the thread sleeps on it
        self.closed = False
        self.driver: threading.Thread | None = None
        self.failure: EngineError | None = None
        self.receivers: dict[int, _Receiver] = {}
        self.calls: deque[tuple[Callable[[], None], Future[Any]]] = deque()

    def close(self) -> None:
        """Have the thread end."""
        self.closed = True
        self.wake.put(None)

    def hand_out(self, output: RequestOutput) -> None:
        """Put an output into its request's queue, which is forgotten with the last end."""
        receiver = self.receivers.get(output.request_id)
        if receiver is None:
            return
        receiver.left -= output.finish_reason is not None
        if not receiver.left:
            del self.receivers[output.request_id]
        receiver.deliveries.put(output)  # last: whoever has read an answer's end finds no trace of it here

    def fail(self, failure: EngineError) -> None:
        """Deliver a failure to every request that waits, and to each later one."""
        with self.lock:
            self.failure = failure
            for receiver in self.receivers.values():
                receiver.deliveries.put(self.failure)
            self.receivers.clear()
            for _, done in self.calls:
                done.set_exception(self.failure)
            self.calls.clear()


_driven: weakref.WeakSet[_Mailbox] = weakref.WeakSet()
"""Of engines whose thread was started."""


def _fail_in_fork() -> None:
    """In a new process there are none of the threads, and locks that they held are never released."""
    for mailbox in list(_driven):
        mailbox.lock = threading.RLock()
        mailbox.fail(
            EngineError(
                "this process was forked from one whose model was answering, and its engine's thread stayed there: "
                "load the model in the new process, or start it by the method 'spawn'"
            )
        )
    _driven.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fail_in_fork)


@atexit.register
def _end_threads() -> None:
    """Have no engine in a pass when the interpreter is finalized, which torch would not survive.

    A pass is left between two of its operations, since no caller waits for it any more.
    """
    for mailbox in list(_driven):
        mailbox.failure = mailbox.failure or EngineError("the interpreter is exiting, and the engine answers no more")
        mailbox.close()  # wakes it where it sleeps
        thread = mailbox.driver
        if thread is not None and thread.is_alive() and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
            thread.join(EXIT_SECONDS)


def _drive(mailbox: _Mailbox, thread: weakref.ref[EngineThread]) -> None:
    """Step while there is work, sleep while there is none, end when the engine is gone."""
    with mailbox.lock:
        if mailbox.driver is not None:
            return
        mailbox.driver = threading.current_thread()
    while not mailbox.closed:
        _sleep(mailbox)
        driven = thread()
        if driven is None or mailbox.closed:
            return
        try:
            while driven.deliver():
                pass
        except BaseException as error:
            if not mailbox.closed:  # else the interpreter ends, and takes those who wait with it
                what = " ".join(f"{type(error).__name__}: {error}".split())
                failure = EngineError(f"the engine has failed and answers no more ({what}): load the model again")
                failure.__cause__ = error
                mailbox.fail(failure)
            return
        del driven


def _sleep(mailbox: _Mailbox) -> None:
    """Wait until the thread is woken; release its helpers if that takes a while."""
    try:
        mailbox.wake.get(timeout=IDLE_SECONDS)
    except queue.Empty:
        release_idle_threads()
        mailbox.wake.get()


def release_idle_threads() -> None:
    """Release the calling thread's helpers, if it has any, and OpenMP is GNU's."""
    library = _gnu_openmp()
    if library is not None:
        library.omp_pause_resource_all(SOFT_PAUSE)


def compute_alone() -> None:
    """Let torch's own loops in the calling thread run without helpers, where OpenMP is GNU's."""
    library = _gnu_openmp()
    if library is not None:
        torch.get_num_threads()  # torch sets a thread's number where it asks for it first
        library.omp_set_num_threads(1)


@cache
def _gnu_openmp() -> ctypes.CDLL | None:
    """The library that torch brings along, and has loaded; None where it has another, whose pauses stop all threads."""
    for file in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            library = ctypes.CDLL(str(file))
        except OSError:
            continue
        if hasattr(library, "omp_pause_resource_all"):  # not before OpenMP 5
            return library
    return None
