"""Clients that ask as fast as they are let: one request after the other on each of many connections.

In: a server, requests, and how many connections. Out: how each request ended. Who is refused waits as long as the
server says, and asks again: a new request, and counted as one.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from flashsloth.benchmark.serving.client import Answered, Connection, ConnectionEndedError, Reply, read_answer
from flashsloth.benchmark.serving.server_process import ServerProcess

HANG_SECONDS = 120.0
"""After which a request counts as one that hangs."""
MOST_IDLE_SECONDS = 3.0
"""After which a client does not use a connection again: the server may be closing it, which it does after 5."""
OPENING = 64
"""Connections that are opened at a time."""


@dataclass(frozen=True)
class End:
    """How a request ended.

    Attributes:
        number: of the request.
        status: HTTP's; 0 where there was none.
        seconds: it took.
        first_token: seconds to the first text of a stream.
        answer: what came.
        retry_after: what a refusal said.
        wrong: what must not be, if anything.
    """

    number: int
    status: int
    seconds: float
    first_token: float | None
    answer: Answered
    retry_after: int | None = None
    wrong: str | None = None


@dataclass
class LoadResult:
    """What came of a load.

    Attributes:
        ends: of requests, in the order in which they ended.
        seconds: it took.
        client_seconds: processor time of the clients.
    """

    ends: list[End] = field(default_factory=list)
    seconds: float = 0.0
    client_seconds: float = 0.0

    @property
    def answered(self) -> list[End]:
        """Those with an answer."""
        return [one for one in self.ends if one.status == HTTPStatus.OK and one.wrong is None]

    @property
    def refused(self) -> list[End]:
        """Those that were told to ask again."""
        return [one for one in self.ends if one.status == HTTPStatus.TOO_MANY_REQUESTS and one.wrong is None]

    @property
    def wrong(self) -> list[str]:
        """What must not be."""
        return [f"request {one.number}: {one.wrong}" for one in self.ends if one.wrong is not None]

    @property
    def tokens(self) -> int:
        """Of all answers."""
        return sum(one.answer.tokens for one in self.answered)

    @property
    def tokens_per_second(self) -> float:
        """Of all answers together."""
        return self.tokens / self.seconds

    @property
    def first_tokens(self) -> list[float]:
        """Seconds to each answer's first text."""
        return [one.first_token for one in self.answered if one.first_token is not None]


async def run_load(
    server: ServerProcess, make: Callable[[int], bytes], requests: int, connections: int, first: int = 0
) -> LoadResult:
    """Ask.

    Args:
        server: that answers.
        make: a request, by its number.
        requests: how many, refused ones counted.
        connections: clients at once.
        first: number of the first request.
    """
    raise_file_limit(connections)
    opened: list[Connection] = []
    for start in range(0, connections, OPENING):
        some = range(start, min(start + OPENING, connections))
        opened += await asyncio.gather(*(server.open() for _ in some))
    result = LoadResult()
    numbers = iter(range(first, first + requests))
    started, processor = time.perf_counter(), time.process_time()
    try:
        await asyncio.gather(*(_ask_on(one, server, make, numbers, result) for one in opened))
    finally:
        for one in opened:
            one.abort()
    result.seconds, result.client_seconds = time.perf_counter() - started, time.process_time() - processor
    return result


async def _ask_on(
    connection: Connection, server: ServerProcess, make: Callable[[int], bytes], numbers: object, result: LoadResult
) -> None:
    for number in numbers:  # type: ignore[attr-defined]  # one iterator for all clients
        if not connection.is_open or connection.idle_seconds > MOST_IDLE_SECONDS:  # its client waited, as it was told
            connection.abort()
            connection = await server.open()
        end = await ask_once(connection, number, make(number))
        result.ends.append(end)
        if end.retry_after is not None:
            await asyncio.sleep(end.retry_after)


async def ask_once(connection: Connection, number: int, content: bytes) -> End:
    """How one request ends."""
    started = time.perf_counter()
    try:
        reply = await asyncio.wait_for(connection.ask(content), HANG_SECONDS)
    except TimeoutError:
        connection.abort()
        return _failed(number, started, f"no end within {HANG_SECONDS:g} s")
    except ConnectionEndedError as error:
        return _failed(number, started, str(error))
    return judge(number, reply)


def judge(number: int, reply: Reply) -> End:
    """What a reply means."""
    answer, wrong = read_answer(reply), None
    if reply.status == HTTPStatus.OK:
        if answer.error is not None or answer.finish_reason not in ("stop", "length"):
            wrong = f"it ended in {answer.finish_reason}: {answer.error}"
    elif reply.status != HTTPStatus.TOO_MANY_REQUESTS:
        wrong = f"status {reply.status}: {answer.error}"
    elif reply.retry_after is None:
        wrong = "it was refused without Retry-After"
    return End(number, reply.status, reply.seconds, reply.first_token, answer, reply.retry_after, wrong)


def _failed(number: int, started: float, wrong: str) -> End:
    return End(number, 0, time.perf_counter() - started, None, Answered("", None, 0), None, wrong)


def raise_file_limit(connections: int) -> None:
    """Let this process have a file for each connection."""
    try:
        import resource
    except ImportError:  # Windows, where there is no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OPENING + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))


class HealthWatch:
    """Asks `/health/live` again and again while a block runs: how long each took.

    Attributes:
        seconds: of each.
    """

    EVERY_SECONDS = 0.05

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.seconds: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HealthWatch:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    @property
    def p99(self) -> float:
        """The time that 99 of 100 stayed below."""
        return percentile(self.seconds, 99)

    async def _watch(self) -> None:
        from flashsloth.benchmark.serving.client import request

        connection = await self._server.open()
        while True:
            reply = await connection.ask(request("GET", "/health/live"))
            assert reply.status == HTTPStatus.OK
            self.seconds.append(reply.seconds)
            await asyncio.sleep(self.EVERY_SECONDS)


def percentile(values: list[float], share: int) -> float:
    """The value that so many percent stay below; the largest of few."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]
