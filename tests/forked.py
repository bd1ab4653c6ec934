"""Processes without a start each: forked from a server that has imported everything once, one for a run of the suite.

For a test that needs a process of its own (its memory, its signals, its end) but not the start of one.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fork_server

from flashsloth.files import lock_file

FOLDER = "FLASHSLOTH_TESTS_FORK_SERVER"
"""The environment's name of the folder where a run of the suite has its server; `conftest.py` makes it."""
SECONDS = 300.0
"""No process takes as long, unless it hangs."""
POLL_SECONDS = 0.02
_seats: list[socket.socket] = []
"""A connection that asks for nothing: while it is there, so is the server."""


class Process:
    """A call in a process of its own, in this one's folder, environment and streams; it ends with this object."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._connection, self.pid = fork_server.ask(_address(), sys.path, function, *arguments)
        self.exitcode: int | None = None

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not self.join(0)

    def join(self, seconds: float = SECONDS) -> bool:
        """Whether it ends within so many seconds; `exitcode` is known from then on, negative for a signal's."""
        if self.exitcode is None and select.select([self._connection], [], [], seconds)[0]:
            self.exitcode = fork_server.read_number(self._connection)
            self._connection.close()
        return self.exitcode is not None


def python() -> list[str]:
    """What stands for `python` before `-c` or `-m`, with everything imported that tests import."""
    return [sys.executable, "-S", "-E", fork_server.__file__, _address()]


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code as `python -c` does, to its end.

    Raises:
        subprocess.TimeoutExpired: if it hangs.
    """
    return subprocess.run([*python(), "-c", code, *arguments], capture_output=True, text=True, timeout=SECONDS)


@cache
def _address() -> str:
    """Where the server listens, which the first of those who run tests starts; it stays as long as one of them."""
    folder = Path(os.environ[FOLDER])
    address = folder / "socket"
    with (folder / "lock").open("wb") as lock:
        lock_file(lock.fileno(), wait=True)
        try:
            seat = fork_server.connect(str(address))
        except OSError:
            address.unlink(missing_ok=True)  # of one that has ended
            seat = _start(address, folder / "log")
    _seats.append(seat)
    return str(address)


def _start(address: Path, log: Path) -> socket.socket:
    """Start the server; a connection to it."""
    command = [sys.executable, fork_server.__file__, str(address)]
    with log.open("wb") as said:  # in a session of its own: Ctrl-C comes to those who run tests
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    while server.poll() is None:
        try:
            return fork_server.connect(str(address))
        except OSError:
            time.sleep(POLL_SECONDS)
    raise AssertionError(log.read_text(encoding="utf-8"))
