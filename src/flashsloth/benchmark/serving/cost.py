"""L3, and throughput against concurrency: what a server costs beside the same work without one.

In: a server of a model whose answers never end early, and the same model in this process. Out: tokens a second of both,
measured in turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.load import LoadResult, percentile, run_load
from flashsloth.benchmark.serving.questions import Question
from flashsloth.benchmark.serving.server_process import ServerProcess
from flashsloth.benchmark.serving.solo import SoloAnswers

ROWS, TOKENS, SHORT_TOKENS = 32, 64, 4
PICTURE = 1
LEAST_SHARE, MOST_FIRST_TOKEN = 0.85, 0.02
CONCURRENCY = (1, 4, 16, 32, 64, 256, 1024)
LEVEL_TOKENS, LEAST_REQUESTS = 32, 64


@dataclass(frozen=True)
class Level:
    """What so many clients at once got.

    Attributes:
        clients: at once.
        tokens_per_second: of all answers together.
        batch_tokens_per_second: of `answer_batch` with the same questions.
        first_token, first_token_p99: seconds to the first text.
        client_seconds, server_seconds: processor time.
        wrong: what must not be.
    """

    clients: int
    tokens_per_second: float
    batch_tokens_per_second: float
    first_token: float
    first_token_p99: float
    client_seconds: float
    server_seconds: float
    wrong: tuple[str, ...] = ()


async def cost(server: ServerProcess, solo: SoloAnswers, rounds: int) -> RowResult:
    """L3: in turns `answer_batch`, streams and whole replies; then the first token, and short answers."""
    result = RowResult("L3")
    streamed, whole, client, processor = [], [], [], []
    for number in range(rounds + 1):
        asked = _questions(ROWS, TOKENS)
        own = time.process_time()
        alone = _batch(solo, asked, ROWS)
        own, theirs = time.process_time() - own, server.processor_seconds()
        streams = await run_load(server, lambda i, asked=asked: asked[i].stream(), ROWS, ROWS)  # type: ignore[misc]
        theirs = server.processor_seconds() - theirs
        replies = await run_load(server, lambda i, asked=asked: asked[i].request(), ROWS, ROWS)  # type: ignore[misc]
        result.wrong += _problems(streams, TOKENS) + _problems(replies, TOKENS)
        if number:  # the first one warms up
            streamed.append(streams.tokens_per_second / alone)
            whole.append(replies.tokens_per_second / alone)
            client.append(streams.client_seconds)
            processor.append(theirs / own)
    result.add("streams beside answer_batch", statistics.median(streamed), least=LEAST_SHARE)
    result.add("whole replies beside answer_batch", statistics.median(whole))
    result.add("streams' processor time beside answer_batch's", statistics.median(processor))
    result.add("clients' processor time a round", statistics.median(client), "s")
    own, served = await _first_tokens(server, solo, 2 * rounds)
    result.add("first token in process", own, "s")
    result.add("first token served", served, "s", most=own + MOST_FIRST_TOKEN)
    short = _questions(ROWS * rounds, SHORT_TOKENS)
    found = await run_load(server, lambda i: short[i].stream(), len(short), ROWS)
    result.add(f"answers of {SHORT_TOKENS} tokens a second", len(found.answered) / found.seconds)
    return result


async def level(server: ServerProcess, solo: SoloAnswers, clients: int) -> Level:
    """So many clients at once, beside `answer_batch`."""
    asked = _questions(max(clients, LEAST_REQUESTS), LEVEL_TOKENS)
    alone = _batch(solo, asked, clients)
    processor = server.processor_seconds()
    found = await run_load(server, lambda i: asked[i].stream(), len(asked), clients)
    return Level(
        clients,
        found.tokens_per_second,
        alone,
        statistics.median(found.first_tokens or [0.0]),
        percentile(found.first_tokens, 99),
        found.client_seconds,
        server.processor_seconds() - processor,
        tuple(_problems(found, LEVEL_TOKENS)),
    )


def _questions(count: int, tokens: int) -> list[Question]:
    return [Question(PICTURE, f"What color is circle number {number}?", tokens) for number in range(count)]


def _batch(solo: SoloAnswers, asked: list[Question], at_once: int) -> float:
    """Tokens a second of `answer_batch`, so many at once; no answer ends before its length."""
    pairs = [(solo.picture(one.picture), one.text) for one in asked]
    started = time.perf_counter()
    for start in range(0, len(pairs), at_once):
        solo.sloth.answer_batch(pairs[start : start + at_once], max_tokens=asked[0].tokens)
    return sum(one.tokens for one in asked) / (time.perf_counter() - started)


async def _first_tokens(server: ServerProcess, solo: SoloAnswers, times: int) -> tuple[float, float]:
    """Seconds to the first text in this process, as `flashsloth ask` shows it, and of a stream; in turns."""
    own, served = [], []
    connection = await server.open()
    for one in _questions(times, TOKENS):
        started = time.perf_counter()
        stream = solo.sloth.stream(solo.picture(one.picture), one.text, max_tokens=one.tokens)
        next(stream)
        own.append(time.perf_counter() - started)
        for _ in stream:
            pass
        reply = await connection.ask(one.stream())
        served.append(reply.first_token or reply.seconds)
    connection.abort()
    return statistics.median(own), statistics.median(served)


def _problems(found: LoadResult, tokens: int) -> list[str]:
    short = [
        f"request {one.number}: {one.answer.tokens} tokens" for one in found.answered if one.answer.tokens != tokens
    ]
    return [*found.wrong, *short, *(f"request {one.number} was refused" for one in found.refused)]
