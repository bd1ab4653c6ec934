"""L4: what a server takes that nobody asks.

In: a server, and seconds. Out: its share of a processor.
"""

from __future__ import annotations

import asyncio
import time

from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.server_process import ServerProcess

MOST_SHARE = 1.0
SETTLE_SECONDS = 2.0
"""After the last request: helpers of the engine's thread are let go."""


async def idle(server: ServerProcess, seconds: float) -> RowResult:
    """Watch a server that has nothing to do."""
    await server.wait_until_idle()
    await asyncio.sleep(SETTLE_SECONDS)
    started, before = time.monotonic(), server.processor_seconds()
    await asyncio.sleep(seconds)
    share = 100 * (server.processor_seconds() - before) / (time.monotonic() - started)
    result = RowResult("L4")
    result.add("of one processor", share, "%", most=MOST_SHARE)
    return result
