"""A server in a process of its own, as `flashsloth serve` starts it, seen from outside.

In: a model and options of the command. Out: its address; its memory, processor time and figures; its exit status.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flashsloth.benchmark.serving.client import Connection, Reply, request
from flashsloth.errors import BenchmarkError

MODULE = "flashsloth.benchmark.serving.breakable_server"
"""The command, with faults that a client or a signal can have it make."""
START_SECONDS, END_SECONDS = 600.0, 60.0
"""In which a server starts (one of true size is read from a disk) and ends."""
LOOK_SECONDS = 0.05
ADDRESS = re.compile(r"answers at http://([0-9.]+):([0-9]+)/v1")
LAST_LINES = 5
STEADY_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(64 << 10),
    "MALLOC_MMAP_THRESHOLD_": str(256 << 10),
    "MALLOC_TOP_PAD_": "0",
}
"""Has GNU's allocator give back what is free, which it would keep by chance: what grows then is what is held."""


class ServerProcess:
    """A running server; a context that ends it.

    Args:
        model: a folder; None for the small model.
        options: of `flashsloth serve`.
        environment: variables beside this process's.

    Attributes:
        host, port: where it listens.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = tempfile.NamedTemporaryFile("w+", prefix="flashsloth-serve-")  # noqa: SIM115 - closed with the process
        self._out = tempfile.NamedTemporaryFile("w+", prefix="flashsloth-serve-")  # noqa: SIM115 - likewise
        self._process = subprocess.Popen(
            self._command([] if model is None else [str(model)], options),
            stdout=self._out,
            stderr=self._log,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        self.host, self.port = "", 0

    def _command(self, named: list[str], options: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", MODULE, *named, "--port", "0", "--served-model-name", "nano", *options]

    def __enter__(self) -> ServerProcess:
        self.wait_until_ready()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def wait_until_ready(self) -> None:
        """Until it accepts requests.

        Raises:
            BenchmarkError: if it does not come to that.
        """
        end = time.monotonic() + START_SECONDS
        while (found := self._address(Path(self._out.name).read_text(), self.log_lines)) is None:
            if self._process.poll() is not None or time.monotonic() > end:
                said = " / ".join(self.log_lines[-LAST_LINES:]) or "nothing"
                self.close()
                raise BenchmarkError(f"the server did not start; it said: {said}")
            time.sleep(LOOK_SECONDS)
        self.host, self.port = found[1], int(found[2])

    def _address(self, out: str, log: list[str]) -> re.Match[str] | None:
        """Host and port, once it says that it is ready."""
        return ADDRESS.search(out)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def log_lines(self) -> list[str]:
        """What it has logged."""
        return Path(self._log.name).read_text(errors="replace").splitlines()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def exit_status(self, seconds: float = END_SECONDS) -> int | None:
        """With which it ends; None if it does not within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def close(self) -> None:
        """End it, and all that it has started."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self.exit_status()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        self._out.close()

    def memory(self) -> int:
        """Bytes that the process holds, without what it shares with others; its media workers are not counted."""
        import psutil

        return int(psutil.Process(self.pid).memory_full_info().uss)

    def processor_seconds(self) -> float:
        """Processor time of the process and of those that it has started."""
        import psutil

        own = psutil.Process(self.pid)
        times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
        return float(sum(one.user + one.system for one in times))

    async def open(self, receive_buffer: int | None = None) -> Connection:
        """A connection."""
        return await Connection.open(self.host, self.port, receive_buffer)

    def has_connection(self, port: int) -> bool:
        """Whether it holds a connection to a client at that port."""
        import psutil

        found = psutil.Process(self.pid).net_connections("tcp")
        return any(one.raddr and one.raddr.port == port for one in found)

    async def get(self, path: str) -> Reply:
        """A reply, on a connection of its own."""
        connection = await self.open()
        try:
            return await connection.ask(request("GET", path))
        finally:
            connection.abort()

    async def figures(self) -> dict[str, float]:
        """What `/metrics` says, by name; labels are part of it."""
        text = (await self.get("/metrics")).body.decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name.removeprefix("flashsloth:"): float(value) for name, _, value in lines}

    async def wait_until_idle(self, seconds: float = END_SECONDS) -> float:
        """Seconds until nothing runs and nothing waits.

        Raises:
            BenchmarkError: if that takes too long.
        """
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            found = await self.figures()
            if not found["num_requests_running"] and not found["num_requests_waiting"]:
                return time.monotonic() - started
            await asyncio.sleep(LOOK_SECONDS)
        raise BenchmarkError(f"the server was not idle {seconds:g} s after the last client had left")
