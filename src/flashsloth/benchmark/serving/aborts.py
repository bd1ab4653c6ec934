"""A1 and A2: clients that leave, and one that reads nothing.

In: a server. Out: whether what they held is free again, and the others notice nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time

from flashsloth.benchmark.serving.client import Connection, ConnectionEndedError, request
from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.load import percentile, run_load
from flashsloth.benchmark.serving.questions import NEVER_ENDS, NOTHING, Question, draw_question
from flashsloth.benchmark.serving.server_process import ServerProcess
from flashsloth.benchmark.serving.solo import SoloAnswers

AT_ONCE, PICTURES = 48, 64
LONG_TOKENS, GOOD_TOKENS = 400, 16
LONGEST_STAY = 0.3
"""Seconds after which a client leaves, at most, if it does not leave in the middle of what it sends."""
CUT_SHORT = 0.2
"""Of the clients, those that leave while they send."""
ROWS, ROUNDS, MOST_STEPS = 16, 5, 2
MOST_BYTES, GOOD = 20e6, 100
NO_END = {"1": -100}
READER_SECONDS, READER_SLACK = 30.0, 10.0
STREAMS, STREAM_TOKENS = 8, 300
MOST_GAP = 1.5
LOUD = {"logprobs": True, "top_logprobs": 20, "n": 8, "logit_bias": NO_END}
"""What makes an answer of megabytes."""


async def leave(server: ServerProcess, solo: SoloAnswers, disconnects: int) -> RowResult:
    """A1: so many disconnects at random moments."""
    result = RowResult("A1")
    await _leave_all(server, range(AT_ONCE))
    await server.wait_until_idle()
    before = server.memory()
    await _leave_all(server, range(disconnects))
    result.add("seconds until idle", await server.wait_until_idle(), "s")
    result.add("memory", max(server.memory() - before, 0), "bytes", most=MOST_BYTES)
    steps = [await _steps_after_leaving(server) for _ in range(ROUNDS)]
    result.add("steps until rows and queue are free", statistics.median(steps), most=MOST_STEPS)
    asked = [draw_question(number, PICTURES, GOOD_TOKENS) for number in range(GOOD)]
    found = await run_load(server, lambda i: asked[i].stream(), GOOD, ROWS)
    result.wrong += [told for one in found.ends if (told := solo.wrong(one, asked[one.number]))]
    result.add("good answers afterwards", GOOD - len(result.wrong), least=GOOD)
    return result


async def _leave_all(server: ServerProcess, numbers: range) -> None:
    left = iter(numbers)

    async def client() -> None:
        for number in left:
            await _leave(server, number)

    await asyncio.gather(*(client() for _ in range(min(AT_ONCE, len(numbers)))))


async def _leave(server: ServerProcess, number: int) -> None:
    chance = random.Random(number)
    asked = Question(chance.choice((NOTHING, chance.randrange(PICTURES))), f"{NEVER_ENDS} {number}", LONG_TOKENS)
    content = (asked.stream if chance.random() < 0.5 else asked.request)(logit_bias=NO_END)
    if chance.random() < CUT_SHORT:
        content = content[: chance.randrange(1, len(content))]
    connection = await server.open()
    connection.send(content)
    await asyncio.sleep(chance.random() * LONGEST_STAY)
    connection.abort()


async def _steps_after_leaving(server: ServerProcess) -> float:
    """Steps that the engine makes after all its clients have left, from when the server can know it.

    On a busy machine one more may pass between the first look at their number and the last departure that is noticed.
    """
    clients = [await server.open() for _ in range(ROWS)]
    replies = [
        one.send(Question(NOTHING, f"{NEVER_ENDS} {number}", LONG_TOKENS).stream(logit_bias=NO_END))
        for number, one in enumerate(clients)
    ]
    while not all(one.first_token for one in replies):
        await asyncio.sleep(0.005)
    observer = await server.open()
    for one in clients:
        one.abort()
    await asyncio.sleep(0)  # now they are gone
    text = (await observer.ask(request("GET", "/metrics"))).body.decode()
    observer.abort()
    await server.wait_until_idle()
    return (await server.figures())["engine_steps"] - _steps(text)


def _steps(text: str) -> float:
    [line] = [line for line in text.splitlines() if line.startswith("flashsloth:engine_steps ")]
    return float(line.split()[1])


async def slow_reader(server: ServerProcess) -> RowResult:
    """A2: one client stops reading a long reply; it is cut, and the others' answers come as they did."""
    result = RowResult("A2")
    await _gaps(server)
    alone = await _gaps(server)
    slow = await server.open(receive_buffer=4096)
    reply = slow.send(Question(NOTHING, NEVER_ENDS, 1500).stream(**LOUD))
    while not reply.pieces:
        await asyncio.sleep(0.005)
    slow.pause()
    stopped, port = time.monotonic(), slow.port
    beside = await _gaps(server)
    while server.has_connection(port) and time.monotonic() < stopped + 2 * READER_SECONDS:
        await asyncio.sleep(0.1)
    result.add("cut after", time.monotonic() - stopped, "s", most=READER_SECONDS + READER_SLACK, least=READER_SECONDS)
    slow.abort()
    await server.wait_until_idle()
    result.add("others' p99 gap, alone", alone, "s")
    result.add("others' p99 gap beside it", beside / alone, "times", most=MOST_GAP)
    return result


async def _gaps(server: ServerProcess) -> float:
    """The 99th percentile of the time between two pieces of streams that run side by side."""
    clients = [await server.open() for _ in range(STREAMS)]

    async def ask(number: int, one: Connection) -> list[float]:
        asked = Question(NOTHING, f"{NEVER_ENDS} {number}", STREAM_TOKENS)
        try:
            reply = await one.ask(asked.stream(logit_bias=NO_END))
        except ConnectionEndedError:
            return []
        times = [when for when, _ in reply.pieces]
        return [after - before for before, after in itertools.pairwise(times)]

    found = await asyncio.gather(*(ask(number, one) for number, one in enumerate(clients)))
    for one in clients:
        one.abort()
    return percentile([gap for some in found for gap in some], 99)
