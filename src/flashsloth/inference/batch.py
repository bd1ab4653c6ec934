"""Many questions at once: made ready by threads, answered by the engine, handed out as they get done.

In: (picture, question) pairs, read as they are needed. Out: each pair's place, and its answers or what went wrong.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from flashsloth.inference.answer import Answer, Collector
from flashsloth.inference.engine.engine_thread import EngineThread, Reply
from flashsloth.inference.engine.preprocessing import Prepare, Preprocessing, Write
from flashsloth.inference.errors import EngineError
from flashsloth.inference.request import Request, RequestOutput

AHEAD = 16
"""Requests that are made before there is a row for them."""

Ready = tuple[int, "Future[Request]"]
"""The place of a pair, and its request."""
Outcome = list[Answer] | Exception


class Batch:
    """One run through pairs.

    Args:
        thread: that answers.
        prepare, write: see :class:`Preprocessing`.
        collector: makes what gathers a request's outputs.
    """

    def __init__(
        self, thread: EngineThread, prepare: Prepare, write: Write, collector: Callable[[Request], Collector]
    ) -> None:
        self._thread, self._prepare, self._write, self._collector = thread, prepare, write, collector
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()  # what threads have made, and what the engine brings
        self._running: dict[int, tuple[int, Collector, Reply]] = {}  # request id -> place, answers so far

    def run(self, pairs: Iterable[Any]) -> Iterator[tuple[int, Outcome]]:
        """(place in `pairs`, answers or error) as they get done.

        Raises:
            EngineError: if the engine has failed.
            Exception: what `pairs` itself raises.
        """
        config = self._thread.engine.config
        making = Preprocessing(pairs, self._prepare, self._write, self._made, config.workers)
        most, first = config.max_rows + AHEAD, config.pictures_per_step
        started = pending = 0
        more = True
        try:
            with making:
                while True:
                    while more and pending + len(self._running) < most:
                        more = making.start_next()
                        pending += more
                        started += more
                    if not (pending or self._running):
                        return
                    least = min(first, started) if not self._running and started <= most else 1
                    ready, outputs = self._wait(min(least, pending))
                    pending -= len(ready)
                    yield from self._submit(ready)
                    for output in outputs:
                        yield from self._take(output)
        finally:
            for _, _, reply in self._running.values():
                reply.abort()

    def _made(self, place: int, request: Future[Request]) -> None:
        self._events.put((place, request))

    def _wait(self, least: int) -> tuple[list[Ready], list[RequestOutput]]:
        """What has come, once something has; at the start, once so many requests are ready to start together."""
        ready: list[Ready] = []
        outputs: list[RequestOutput] = []
        while (not outputs and len(ready) < max(least, 1)) or not self._events.empty():
            event = self._events.get()
            if isinstance(event, EngineError):
                raise event
            if isinstance(event, RequestOutput):
                outputs.append(event)
            else:
                ready.append(event)
        return ready, outputs

    def _submit(self, ready: list[Ready]) -> Iterator[tuple[int, Outcome]]:
        """Let the engine answer what is ready; what could not be made comes back at once."""
        requests: list[tuple[int, Request]] = []
        for place, future in ready:
            error = future.exception()
            if isinstance(error, Exception):
                yield place, error
            elif error is None:
                requests.append((place, future.result()))
        if not requests:
            return
        replies = self._thread.submit_all([request for _, request in requests], self._events)
        for (place, request), reply in zip(requests, replies, strict=True):
            if isinstance(reply, Reply):
                self._running[reply.request_id] = place, self._collector(request), reply
        for (place, _), reply in zip(requests, replies, strict=True):
            if isinstance(reply, Exception):
                yield place, reply

    def _take(self, output: RequestOutput) -> Iterator[tuple[int, Outcome]]:
        place, collector, reply = self._running[output.request_id]
        collector.add(output)
        if collector.missing:
            return
        reply.ended()
        del self._running[output.request_id]
        yield place, _outcome(collector)


def _outcome(collector: Collector) -> Outcome:
    try:
        return collector.answers()
    except Exception as error:  # what ended one of them: who reads the batch decides what to do
        return error


__all__ = ["Batch"]
