"""Rows of the table of serving's figures, at a twentieth of its counts, against one server in a process of its own.

The code is `flashsloth bench serve`'s, and so are the limits of each request; what is timed is left to that command.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from served import nano

from flashsloth.benchmark.serving import aborts, full_load, idle, poison
from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.server_process import STEADY_MEMORY, ServerProcess
from flashsloth.benchmark.serving.solo import SoloAnswers

Row = Callable[[ServerProcess, SoloAnswers], Awaitable[RowResult]]
ROWS: dict[str, Row] = {
    "L1": lambda server, _: full_load.load(server, 500, 192, timed=False),
    "L2": lambda server, solo: full_load.right_picture(server, solo, 100),
    "L4": lambda server, _: idle.idle(server, 20),
    "A1": lambda server, solo: aborts.leave(server, solo, 50),
    "P1": lambda server, solo: poison.poison(server, solo, 400),
    "P2": lambda server, solo: poison.caches(server, solo, 2),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(environment=STEADY_MEMORY) as made:
        yield made


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_table_holds(name: str, server: ServerProcess) -> None:
    result = asyncio.run(ROWS[name](server, SoloAnswers(nano())))
    assert result.holds, result.missed[:5]


def test_nothing_was_logged_but_lines_of_requests_and_the_faults_that_were_asked_for(server: ServerProcess) -> None:
    assert server.is_running
    assert not [line for line in server.log_lines if '"level": "ERROR"' in line]
