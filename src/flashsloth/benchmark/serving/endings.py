"""D1 and D2: servers that are told to end, and servers whose engine fails.

In: how often. Out: whether every accepted request ended as it must, and the process with the right status, in time.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from flashsloth.benchmark.serving.client import Connection, ConnectionEndedError, Reply, read_answer
from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.load import run_load
from flashsloth.benchmark.serving.questions import NEVER_ENDS, NOTHING, Question, draw_question
from flashsloth.benchmark.serving.server_process import ServerProcess

STREAMS, TOKENS = 16, 200
NO_END = {"1": -100}
LONGEST_WAIT = 1.0
"""Seconds after which the signal comes, at most."""
DRAIN_SECONDS, AT_ONCE_SECONDS = 30.0, 1.0
TWICE_EACH = 10
"""Of so many ends, one is told twice."""
DEAD_SECONDS, HANGING_SECONDS = 2.0, 15.0
EXIT_SECONDS = 10.0
PICTURES, BUSY_TOKENS, BUSY_CLIENTS, BUSY_REQUESTS = 32, 16, 64, 1000


async def drain(ends: int, say: Callable[[str], None]) -> RowResult:
    """D1: SIGTERM at a random moment under streams."""
    result = RowResult("D1")
    longest = longest_twice = 0.0
    for number in range(ends):
        twice = number % TWICE_EACH == TWICE_EACH - 1
        seconds, wrong = await _end_one(number, twice=twice)
        result.wrong += [f"end {number}: {one}" for one in wrong]
        longest, longest_twice = (
            (longest, max(longest_twice, seconds))
            if twice
            else (
                max(longest, seconds),
                longest_twice,
            )
        )
        say(f"D1: end {number + 1} of {ends}")
    result.add("ends", ends)
    result.add("longest drain", longest, "s", most=DRAIN_SECONDS)
    result.add("longest after a second signal", longest_twice, "s", most=AT_ONCE_SECONDS)
    return result


async def _end_one(number: int, *, twice: bool) -> tuple[float, list[str]]:
    """Seconds from the last signal to the process's end, and what was wrong."""
    with ServerProcess() as server:
        clients = [await server.open() for _ in range(STREAMS)]
        replies = [one.send(_long(place)) for place, one in enumerate(clients)]
        await asyncio.sleep(random.Random(number).random() * LONGEST_WAIT)
        server.signal(signal.SIGTERM)
        accepted = [bool(one.status) for one in replies]
        if twice:
            await asyncio.sleep(0.05)
            server.signal(signal.SIGTERM)
        started = time.monotonic()
        waits = [asyncio.create_task(_wait(one)) for one in clients]
        while server.is_running and time.monotonic() < started + DRAIN_SECONDS + EXIT_SECONDS:
            await asyncio.sleep(0.01)
        seconds = time.monotonic() - started
        await asyncio.gather(*waits)
        status = server.exit_status(0.1)
    if twice:
        expected = 128 + signal.SIGTERM
        return seconds, [] if status in (0, expected) else [f"exit status {status}; expected {expected}"]
    wrong = [] if status == 0 else [f"exit status {status}; expected 0"]
    for was_accepted, one in zip(accepted, replies, strict=True):
        if was_accepted and (told := _wrong_end(one)):
            wrong.append(told)
    return seconds, wrong


def _long(number: int) -> bytes:
    return Question(NOTHING, f"{NEVER_ENDS} {number}", TOKENS).stream(logit_bias=NO_END)


async def _wait(connection: Connection) -> None:
    with suppress(ConnectionEndedError):
        await connection.wait()


def _wrong_end(reply: Reply) -> str | None:
    if not reply.ended:
        return f"an accepted answer was broken off after {len(reply.pieces)} pieces"
    answer = read_answer(reply)
    return None if answer.finish_reason == "length" else f"an accepted answer ended in {answer.finish_reason}: {answer}"


async def engine_failures(quiet_seconds: float, say: Callable[[str], None]) -> RowResult:
    """D2: the engine raises, or hangs; and, at full load, does neither, and nobody says so."""
    result = RowResult("D2")
    for name, number, limit in (
        ("raises", signal.SIGUSR1, DEAD_SECONDS),
        ("hangs", signal.SIGUSR2, HANGING_SECONDS),
    ):
        say(f"D2: the engine {name}")
        seconds, wrong = await _fail_one(number)
        result.wrong += [f"engine {name}: {one}" for one in wrong]
        result.add(f"not ready after it {name}", seconds, "s", most=limit)
    with ServerProcess() as server:
        started, answered = time.monotonic(), 0
        while server.is_running and (left := started + quiet_seconds - time.monotonic()) > 0:
            say(f"D2: at full load, {left:.0f} s left")
            found = await run_load(server, _busy, BUSY_REQUESTS, BUSY_CLIENTS)
            result.wrong += found.wrong
            answered += len(found.answered)
        result.add("false alarms", 0 if server.is_running else 1, most=0)
        result.add("answers at full load meanwhile", answered)
    return result


def _busy(number: int) -> bytes:
    return draw_question(number, PICTURES, BUSY_TOKENS).stream()


async def _fail_one(number: int) -> tuple[float, list[str]]:
    """Seconds until a server whose engine fails is not ready, and what was wrong."""
    with ServerProcess() as server:
        clients = [await server.open() for _ in range(STREAMS)]
        replies = [one.send(_long(place)) for place, one in enumerate(clients)]
        while not all(one.first_token for one in replies):
            await asyncio.sleep(0.005)
        server.signal(number)
        started = time.monotonic()
        while await _is_ready(server) and time.monotonic() < started + 2 * HANGING_SECONDS:
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - started
        await asyncio.gather(*(_wait(one) for one in clients))
        while server.is_running and time.monotonic() < started + 2 * HANGING_SECONDS + EXIT_SECONDS:
            await asyncio.sleep(0.02)
        status = server.exit_status(0.1)
    wrong = ["exit status 0, or none"] if not status else []
    silent = sum(b'"error"' not in one.body for one in replies)
    return seconds, [*wrong, f"{silent} streams got no error"] if silent else wrong


async def _is_ready(server: ServerProcess) -> bool:
    try:
        return (await server.get("/health/ready")).status == 200
    except OSError:  # it has ended already
        return False
