"""The table of serving's figures as a program: which rows there are, what each takes, and one after the other.

In: names of rows, and a share of their full counts. Out: a result a row, handed out as it comes.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flashsloth.benchmark.checkpoints import NANO, make_checkpoint
from flashsloth.benchmark.serving import aborts, cost, endings, full_load, idle, poison
from flashsloth.benchmark.serving.batch_kills import batch_kills
from flashsloth.benchmark.serving.cost import CONCURRENCY, Level
from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.server_process import STEADY_MEMORY, ServerProcess
from flashsloth.benchmark.serving.solo import SoloAnswers
from flashsloth.errors import BenchmarkError

Say = Callable[[str], None]
MINUTE = 60.0
WIDE_QUEUE = ("--max-waiting", str(max(CONCURRENCY)))


class Bench:
    """What rows share.

    Args:
        share: of the full counts, more than 0 and at most 1.
        say: is told what is done.
    """

    def __init__(self, share: float, say: Say) -> None:
        self.share, self.say = share, say
        self._folder = tempfile.TemporaryDirectory(prefix="flashsloth-bench-")

    def count(self, full: int, least: int = 1) -> int:
        """So many in place of the full number."""
        return max(round(full * self.share), least)

    @cached_property
    def solo(self) -> SoloAnswers:
        """The small model in this process."""
        from flashsloth.inference.load import load

        return SoloAnswers(load(dtype="float32"))

    @cached_property
    def endless(self) -> Path:
        """The small model as a checkpoint whose answers never end early."""
        folder = Path(self._folder.name) / "endless"
        folder.mkdir()
        make_checkpoint(NANO, folder)
        return folder

    @cached_property
    def endless_solo(self) -> SoloAnswers:
        """The same in this process."""
        from flashsloth.inference.load import load

        return SoloAnswers(load(str(self.endless), dtype="float32"))

    def served(self, run: Callable[[ServerProcess], Awaitable[RowResult]]) -> RowResult:
        """What comes of a row against a server of the small model."""
        with ServerProcess(environment=STEADY_MEMORY) as server:
            result: RowResult = asyncio.run(run(server))  # type: ignore[arg-type]
            errors = [line for line in server.log_lines if '"level": "ERROR"' in line]
        result.wrong += [f"the server logged: {one}" for one in errors]
        return result

    def cost(self) -> RowResult:
        """L3, against a server whose answers never end early."""
        with ServerProcess(self.endless) as server:
            return asyncio.run(cost.cost(server, self.endless_solo, self.count(9, 3)))

    def levels(self) -> Iterator[Level]:
        """Throughput and first tokens at each number of clients."""
        with ServerProcess(self.endless, WIDE_QUEUE) as server:
            for clients in CONCURRENCY:
                self.say(f"{clients} clients at once")
                yield asyncio.run(cost.level(server, self.endless_solo, clients))


@dataclass(frozen=True)
class Row:
    """One of the table.

    Attributes:
        name: as "L1".
        about: what it is.
        minutes: that its full counts take on two cores.
        run: does it.
    """

    name: str
    about: str
    minutes: float
    run: Callable[[Bench], RowResult]


ROWS = (
    Row("L1", "10,000 requests over 1,024 connections", 5, lambda bench: bench.served(
        lambda server: full_load.load(server, bench.count(10_000, 400), bench.count(1024, 192)))),
    Row("L2", "2,000 requests about pictures of mixed sizes, 64 at once", 3, lambda bench: bench.served(
        lambda server: full_load.right_picture(server, bench.solo, bench.count(2000, 64)))),
    Row("L3", "what serving costs beside answer_batch", 1, lambda bench: bench.cost()),
    Row("L4", "idle", 1.5, lambda bench: bench.served(
        lambda server: idle.idle(server, max(60 * bench.share, 20)))),
    Row("A1", "1,000 clients that leave", 2, lambda bench: bench.served(
        lambda server: aborts.leave(server, bench.solo, bench.count(1000, 50)))),
    Row("A2", "a client that reads nothing", 1, lambda bench: bench.served(aborts.slow_reader)),
    Row("D1", "200 servers told to end under 16 streams", 45, lambda bench: asyncio.run(
        endings.drain(bench.count(200, endings.TWICE_EACH), bench.say))),
    Row("D2", "an engine that dies, one that hangs, and an hour at full load", 62, lambda bench: asyncio.run(
        endings.engine_failures(60 * MINUTE * bench.share, bench.say))),
    Row("P1", "8,000 requests, one of eight bad", 6, lambda bench: bench.served(
        lambda server: poison.poison(server, bench.solo, bench.count(8000, 80)))),
    Row("P2", "refused with a picture, then asked about it", 0.5, lambda bench: bench.served(
        lambda server: poison.caches(server, bench.solo, bench.count(40, 2)))),
    Row("B1", "100 kills of a batch, and a full disk", 20, lambda bench: batch_kills(
        bench.count(100, 3), bench.say)),
)  # fmt: skip
LEVELS = "concurrency"
LEVELS_MINUTES = 2.0
NAMES = (*(row.name for row in ROWS), LEVELS)
Outcome = RowResult | Level


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of rows, in the table's order; all without a choice.

    Raises:
        BenchmarkError: for one that there is not.
    """
    if names is None:
        return NAMES
    for name in names:
        if name not in NAMES:
            raise BenchmarkError(f"there is no row {name!r}; expected some of {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in names)


def run_rows(names: Iterable[str], share: float, say: Say) -> Iterator[Outcome]:
    """Run rows, one after the other; a row that fails to run has not held, and says why.

    Args:
        names: from :func:`chosen`.
        share: of their full counts.
        say: is told what is done, and beforehand how long it takes.
    """
    bench = Bench(share, say)
    rows = {row.name: row for row in ROWS}
    for name in names:
        if name == LEVELS:
            say(f"throughput against concurrency: {_duration(LEVELS_MINUTES)}")
            yield from bench.levels()
            continue
        row = rows[name]
        say(f"{name}, {row.about}: {_duration(row.minutes * share if share < 1 else row.minutes)}")
        started = time.monotonic()
        try:
            result = row.run(bench)
        except (BenchmarkError, OSError) as error:
            result = RowResult(name, wrong=[f"{type(error).__name__}: {error}"])
        result.seconds = time.monotonic() - started
        yield result


def _duration(minutes: float) -> str:
    return f"about {minutes:.0f} minutes" if minutes >= 1.5 else "about a minute"
