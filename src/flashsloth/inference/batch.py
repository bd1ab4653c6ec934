"""Many questions at once: pictures made ready by threads, answered by the engine, handed out as they get done.

In: (picture, question) pairs, read as they are needed. Out: each pair's place, and its answers or what went wrong. A
pair whose answer is not sure may be asked once more, in another way (`picture_resolution.py`).
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from flashsloth.errors import EngineError
from flashsloth.inference.answer import Answer, Collector
from flashsloth.inference.engine.engine_thread import EngineThread, Reply
from flashsloth.inference.engine.preprocessing import Prepare, Preprocessing
from flashsloth.inference.options import Options
from flashsloth.inference.picture_resolution import HD, hd_options, standard_options
from flashsloth.inference.request import Request, RequestOutput
from flashsloth.inference.vision import PreparedPictures

AHEAD = 16
"""Requests that are made before there is a row for them, where others' work does not slow the engine down."""
SLOW_PAIR = 0.02
"""Seconds after which a pair that is waited for does not keep others waiting."""

Write = Callable[[PreparedPictures, Any, Options], Request]
Ready = tuple[int, Request | Exception]
"""The place of a pair, and its request or why there is none."""
Outcome = list[Answer] | Exception


@dataclass
class Pending:
    """A pair that is being answered: how it is asked, and since when."""

    pair: Any
    options: Options
    since: float


class Batch:
    """One run through pairs.

    Args:
        thread: that answers.
        prepare: see :class:`Preprocessing`.
        write: makes the request of a question about prepared pictures.
        collector: makes what gathers a request's outputs.
        options: how pairs are asked.
    """

    def __init__(
        self,
        thread: EngineThread,
        prepare: Prepare,
        write: Write,
        collector: Callable[[Request, Options], Collector],
        options: Options,
    ) -> None:
        self._thread, self._write, self._collector, self._options = thread, write, collector, options
        self._preparing = Preprocessing(prepare, self._prepared, thread.engine.config.workers)
        self._asked: dict[int, Pending] = {}  # place -> what is being answered
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()  # what threads have made, and what the engine brings
        self._running: dict[int, tuple[int, Collector, Reply]] = {}  # request id -> place, answers so far

    def run(self, pairs: Iterable[Any]) -> Iterator[tuple[int, Outcome]]:
        """(place in `pairs`, answers or error) as they get done.

        Raises:
            EngineError: if the engine has failed.
            Exception: what `pairs` itself raises.
        """
        engine = self._thread.engine
        most = engine.config.max_rows + (0 if engine.device.type == "cpu" else AHEAD)
        numbered = enumerate(pairs)
        more = True
        try:
            with self._preparing:
                while True:
                    slow = False
                    while more and len(self._asked) < most and not (slow and not self._events.empty()):
                        since = time.monotonic()
                        place, pair = next(numbered, (-1, None))
                        more, slow = place >= 0, slow or time.monotonic() - since > SLOW_PAIR
                        if more:
                            self._ask(place, Pending(pair, standard_options(self._options), time.monotonic()))
                    if not self._asked:
                        return
                    pending = len(self._asked) - len(self._running)  # whose requests are being made
                    together = not (self._running or slow)  # who starts together needs fewer passes
                    ready, outputs = self._wait(pending if together else 1)
                    yield from self._submit(ready)
                    for output in outputs:
                        yield from self._take(output)
        finally:
            for _, _, reply in self._running.values():
                reply.abort()

    def _ask(self, place: int, asked: Pending) -> None:
        self._asked[place] = asked
        self._preparing.start(place, asked.pair, asked.options)

    def _prepared(self, place: int, pictures: Future[PreparedPictures]) -> None:
        self._events.put((place, pictures))

    def _wait(self, least: int) -> tuple[list[Ready], list[RequestOutput]]:
        """What has come: outputs, or so many requests that are ready; and what has come beside them."""
        ready: list[Ready] = []
        outputs: list[RequestOutput] = []
        while (not outputs and len(ready) < max(least, 1)) or not self._events.empty():
            event = self._events.get()
            if isinstance(event, EngineError):
                raise event
            if isinstance(event, RequestOutput):
                outputs.append(event)
            else:
                ready.append(self._written(*event))
        return ready, outputs

    def _written(self, place: int, pictures: Future[PreparedPictures]) -> Ready:
        """The request of a pair whose picture is ready: here, since threads that write prompts wait for each other."""
        asked = self._asked[place]
        try:
            return place, self._write(pictures.result(), asked.pair[1], asked.options)
        except Exception as error:  # a BaseException: the thread was made to end, and no answer can be given
            return place, error

    def _submit(self, ready: list[Ready]) -> Iterator[tuple[int, Outcome]]:
        """Let the engine answer what is ready; what could not be made comes back at once."""
        requests: list[tuple[int, Request]] = []
        for place, request in ready:
            if isinstance(request, Request):
                requests.append((place, request))
            else:
                del self._asked[place]
                yield place, request
        if not requests:
            return
        replies = self._thread.submit_all([request for _, request in requests], self._events)
        for (place, request), reply in zip(requests, replies, strict=True):
            if isinstance(reply, Reply):
                collector = self._collector(request, self._asked[place].options)
                self._running[reply.request_id] = place, collector, reply
        for (place, _), reply in zip(requests, replies, strict=True):
            if isinstance(reply, Exception):
                del self._asked[place]
                yield place, reply

    def _take(self, output: RequestOutput) -> Iterator[tuple[int, Outcome]]:
        place, collector, reply = self._running[output.request_id]
        collector.add(output)
        if collector.missing:
            return
        reply.ended()
        del self._running[output.request_id]
        asked = self._asked.pop(place)
        try:
            outcome: Outcome = collector.answers()
        except Exception as error:  # what ended one of them: whoever reads the batch decides what to do
            outcome = error
        if asked.options.resolution != HD and not isinstance(outcome, Exception):
            options = hd_options(self._options, outcome[0], time.monotonic() - asked.since)
            if options is not None:
                self._ask(place, Pending(asked.pair, options, asked.since))
                return
        yield place, outcome
