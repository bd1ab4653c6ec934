"""The engine for an event loop: requests are let in, answered by the engine's own thread, and come back to the loop.

    with engine.admit(answers):                  refused where too many wait already
        reply = engine.submit(request)
        async for outputs in reply: ...          what steps brought since the last time; who stops reading aborts

The engine's thread wakes the loop at most once a step, with what the step brought for all requests together: at once
for an answer's first tokens, for its end, and where nothing came for a while; what comes in quicker succession is
collected for a moment that nobody sees, since handing out a token can cost as much as making it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from flashsloth.errors import EngineError
from flashsloth.inference.engine.engine_thread import Delivery, EngineThread, Reply
from flashsloth.inference.request import Request, RequestOutput
from flashsloth.serving.api_error import invalid, overloaded

LEAST_RETRY_SECONDS, MOST_RETRY_SECONDS = 1, 60
RETRY_SPREAD = 2.0
"""Answers that end for each client that is asked to come again; other places go to those who come by themselves."""
RATE_MEMORY = 0.02
"""Weight of the newest interval between two ends in their running mean; ends come in bursts, one a step."""


COLLECT_SECONDS = 0.05
"""For which tokens are collected that follow others: a text that grows twenty times a second is read as it comes."""


class AsyncEngine:
    """Lets requests of the running event loop be answered.

    Args:
        thread: of the engine.
        max_running: answers that are made at once.
        max_waiting: answers that wait at most.

    Attributes:
        accepted: answers that were let in and have not ended, waiting ones included.
    """

    def __init__(self, thread: EngineThread, max_running: int, max_waiting: int) -> None:
        self._thread, self._most = thread, max_running + max_waiting
        self._max_running = max_running
        self._deliveries = _Deliveries(asyncio.get_running_loop())
        self.accepted = 0
        self._ends, self._interval, self._last_end = 0, 0.0, time.monotonic()
        self._retry_at = 0.0  # when the client that was refused last asks again

    @contextmanager
    def admit(self, answers: int) -> Iterator[None]:
        """A block in which so many answers count as accepted.

        Raises:
            ApiError: 429 where too many wait already, 400 where there can never be as many.
        """
        self.check_room(answers)
        self.accepted += answers
        started = time.monotonic()
        try:
            yield
        finally:
            self.accepted -= answers
            self._note_end(started, answers)

    def check_room(self, answers: int = 1) -> None:
        """Refuse as :meth:`admit` does; before a request's body is looked at, a refusal costs little.

        Raises:
            ApiError: as there.
        """
        if answers > self._most:
            raise invalid(f"n is {answers}; this server makes at most {self._most} answers a request", "n")
        if self.accepted + answers > self._most:
            waiting = max(self.accepted - self._max_running, 0)
            seconds = self._retry_seconds(answers)
            raise overloaded(f"{waiting} answers wait already: ask again in {seconds} s", seconds)

    def submit(self, request: Request) -> AsyncReply:
        """Let the engine answer a request.

        Raises:
            PromptError: if it can never be answered.
            EngineError: if the engine has failed.
        """
        return self._deliveries.expect(self._thread.submit(request, self._deliveries), request.answers)

    def _retry_seconds(self, answers: int) -> int:
        """After how long a refused client should ask again; each is told a later moment than the ones before.

        If all of a thousand were told the same, they would all be refused again but a few.
        """
        now = time.monotonic()
        self._retry_at = max(self._retry_at, now) + RETRY_SPREAD * self._interval * answers
        self._retry_at = min(self._retry_at, now + MOST_RETRY_SECONDS)
        return max(math.ceil(self._retry_at - now), LEAST_RETRY_SECONDS)

    def _note_end(self, started: float, answers: int) -> None:
        """Keep a running mean of the time between the ends of two answers while there is work."""
        now = time.monotonic()
        since = (now - max(self._last_end, started)) / answers
        self._ends += 1
        self._interval += max(RATE_MEMORY, 1 / self._ends) * (since - self._interval)
        self._last_end = now


class AsyncReply:
    """What comes back for one request; made by :meth:`AsyncEngine.submit`."""

    def __init__(self, reply: Reply, answers: int) -> None:
        self._reply, self._running = reply, answers
        self._outputs: list[RequestOutput] = []
        self._failure: EngineError | None = None
        self._news: asyncio.Future[None] | None = None

    async def __aiter__(self) -> AsyncGenerator[list[RequestOutput]]:
        """What steps brought, in their order, until all answers have ended; who stops reading aborts.

        Raises:
            EngineError: if the engine has failed.
        """
        try:
            while self._running:
                if not self._outputs and self._failure is None:
                    self._news = asyncio.get_running_loop().create_future()
                    await self._news
                outputs, self._outputs = self._outputs, []
                self._running -= sum(one.finish_reason is not None for one in outputs)
                if outputs:
                    yield outputs
                elif self._failure is not None:
                    raise self._failure
        finally:
            self.abort()

    def abort(self) -> None:
        """End what has not ended."""
        if self._running:
            self._running = 0
            self._reply.abort()
        self._reply.ended()

    def feed(self, outputs: list[RequestOutput]) -> None:
        """Take in what came for this request."""
        self._outputs += outputs
        self._wake()

    def fail(self, failure: EngineError) -> None:
        """The engine answers no more."""
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class _Deliveries:
    """Takes outputs in from the engine's thread, and hands them to their replies in the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived: deque[Delivery] = deque()
        self._is_called = self._is_urgent = False
        self._timer: asyncio.TimerHandle | None = None
        self._replies: dict[int, tuple[AsyncReply, int]] = {}  # request id -> reply, its answers that have not ended
        self._begun: set[int] = set()  # ids of those that have had something

    def expect(self, reply: Reply, answers: int) -> AsyncReply:
        """Hand what comes for a request to a reply; the loop cannot have handed out any of it yet."""
        made = AsyncReply(reply, answers)
        self._replies[reply.request_id] = made, answers
        return made

    def put(self, item: Delivery, /) -> None:
        """Called by the engine's thread; calls the loop, unless that was called already, or comes by itself soon."""
        self._arrived.append(item)
        if self._is_called and (self._is_urgent or not self._hurries(item)):
            return
        self._is_urgent = self._hurries(item)
        self._is_called = True
        try:
            self._loop.call_soon_threadsafe(self._hand_out)
        except RuntimeError:  # the loop has ended, and nobody reads
            self._arrived.clear()

    def _hurries(self, item: Delivery) -> bool:
        return isinstance(item, EngineError) or item.finish_reason is not None or item.request_id not in self._begun

    def _hand_out(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._is_called = self._is_urgent = False  # first: what comes from now on calls again
        found: dict[int, list[RequestOutput]] = {}
        while self._arrived:
            item = self._arrived.popleft()
            if isinstance(item, EngineError):
                for reply, _ in self._replies.values():
                    reply.fail(item)
                self._replies.clear()
                self._begun.clear()
            else:
                found.setdefault(item.request_id, []).append(item)
        for request_id, outputs in found.items():
            self._feed(request_id, outputs)
        if self._begun and found and not self._is_called:
            self._is_called = True  # by the timer
            self._timer = self._loop.call_later(COLLECT_SECONDS, self._hand_out)

    def _feed(self, request_id: int, outputs: list[RequestOutput]) -> None:
        if request_id not in self._replies:
            return
        reply, left = self._replies.pop(request_id)
        left -= sum(one.finish_reason is not None for one in outputs)
        if left:
            self._replies[request_id] = reply, left
            self._begun.add(request_id)
        else:
            self._begun.discard(request_id)
        reply.feed(outputs)
