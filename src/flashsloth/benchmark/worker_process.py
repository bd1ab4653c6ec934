"""The other end of a worker: a process of its own, asked line by line.

In: requests. Out: results; or one line about why there is none. A worker that dies (for want of memory, say) is an
answer like any other: whoever asked goes on without it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from flashsloth.errors import BenchmarkError

MODULE = "flashsloth.benchmark.worker"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
CLOSE_SECONDS = 5.0
"""How long a worker has to end by itself once nothing more is asked of it."""
LOG_TAIL_BYTES = 4096


class WorkerError(BenchmarkError):
    """A worker could not do what it was asked, or has ended."""


class WorkerProcess:
    """A worker; `with` it, it ends with the block, whatever happens in it.

    Args:
        threads: of its computations; None for as many as torch takes.
        command: what to run, if not the worker itself.
    """

    def __init__(self, threads: int | None = None, command: Sequence[str] | None = None) -> None:
        environment = dict(os.environ)
        if threads is not None:
            environment.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE] if command is None else list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C comes to us, and we end it
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(at_once=any(part is not None for part in exception))

    def request(self, do: str, **arguments: Any) -> Any:
        """The result of a request.

        Raises:
            WorkerError: if there is none.
        """
        try:
            self._stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._stdin.flush()
            line = self._stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            raise WorkerError(self._how_it_ended())
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise WorkerError(f"the worker said {line.strip()!r}; expected JSON") from error
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["result"]

    def close(self, *, at_once: bool = False) -> None:
        """End the process."""
        if self._process.poll() is None:
            with suppress(BrokenPipeError, subprocess.TimeoutExpired):
                self._stdin.close()
                self._process.wait(0 if at_once else CLOSE_SECONDS)
            self._process.kill()
            self._process.wait()
        for pipe in (self._stdin, self._stdout, self._log):
            with suppress(BrokenPipeError):  # closing flushes, and there may be nobody to read
                pipe.close()

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "the process stopped answering"
        if code == -signal.SIGKILL:
            return "the process was killed, most likely by the system for want of memory"
        last = self._last_words()
        return f"the process ended by itself with code {code}" + (f": {last}" if last else "")

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL_BYTES))
        lines = self._log.read().decode("utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
