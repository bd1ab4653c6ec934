"""L1 and L2: a thousand clients at once, and the right picture for each.

In: a server, and how many requests. Out: whether each ended as it must, what was left over, and how quick it was.
"""

from __future__ import annotations

import gc

from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.load import HealthWatch, LoadResult, run_load
from flashsloth.benchmark.serving.questions import draw_question
from flashsloth.benchmark.serving.server_process import ServerProcess
from flashsloth.benchmark.serving.solo import SoloAnswers

PICTURES, TOKENS = 32, 16
WARM_UP, FEW = 200, 32
LEAST_ANSWERED, LEAST_THROUGHPUT = 0.5, 0.95
MOST_BYTES, MOST_HEALTH_SECONDS = 5000, 0.25
SHARE_ALONE = 0.2
"""Of the requests, so many are asked by few clients first, to compare with."""
AT_ONCE, ANSWER_TOKENS = 64, 24
QUESTIONS_A_PICTURE = 4


def _content(number: int) -> bytes:
    return draw_question(number, PICTURES, TOKENS).stream()


async def load(server: ServerProcess, requests: int, connections: int, *, timed: bool = True) -> RowResult:
    """L1: so many requests over so many connections; what is timed only where the machine is quiet."""
    result = RowResult("L1")
    few = min(FEW, connections)
    await run_load(server, _content, WARM_UP, few)
    reference = await run_load(server, _content, int(requests * SHARE_ALONE), few, WARM_UP)
    await run_load(server, _content, connections, connections)  # connections have their buffers now
    await server.wait_until_idle()
    before, processor = server.memory(), server.processor_seconds()
    starved = (await server.figures())["starved_steps"]
    async with HealthWatch(server) as health:
        loaded = await run_load(server, _content, requests, connections, requests)
    processor = server.processor_seconds() - processor
    await server.wait_until_idle()
    gc.collect()
    grown = max(server.memory() - before, 0)
    result.wrong += reference.wrong + loaded.wrong
    result.add("requests that ended", len(loaded.ends), least=requests)
    result.add("of them answered", len(loaded.answered), least=LEAST_ANSWERED * requests)
    result.add("of them refused, with Retry-After", len(loaded.refused))
    starved = (await server.figures())["starved_steps"] - starved
    result.add("further steps with a free row while some waited", starved, most=0)
    result.add("memory a request", grown / requests, "bytes", most=MOST_BYTES)
    result.add("p99 of /health/live", health.p99, "s", most=MOST_HEALTH_SECONDS if timed else None)
    share = rate(loaded) / rate(reference)
    result.add("answers beside few clients'", share, least=LEAST_THROUGHPUT if timed else None)
    result.add("answers a second", rate(loaded))
    result.add("processor time an answer", 1000 * processor / max(len(loaded.answered), 1), "ms")
    result.add("clients' processor time", loaded.client_seconds, "s")
    return result


def rate(result: LoadResult) -> float:
    """Answers a second."""
    return len(result.answered) / result.seconds


async def right_picture(server: ServerProcess, solo: SoloAnswers, requests: int) -> RowResult:
    """L2: each answer is that of its own picture and question, whoever is beside it."""
    pictures = max(requests // QUESTIONS_A_PICTURE, 1)
    asked = [draw_question(number, pictures, ANSWER_TOKENS) for number in range(requests)]
    found = await run_load(
        server, lambda i: asked[i].stream() if i % 2 else asked[i].request(), requests, min(AT_ONCE, requests)
    )
    result = RowResult("L2", wrong=[told for one in found.ends if (told := solo.wrong(one, asked[one.number]))])
    result.add("requests", len(found.ends), least=requests)
    result.add("equal to the answer alone", requests - len(result.wrong), least=requests)
    result.add("different answers among them", len({one.answer.text for one in found.ends}), least=2)
    return result
