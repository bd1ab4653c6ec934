"""What a server logs: one line of JSON for each request, and one for whatever else there is to say.

In: log records; a request's, with what is known of it, on the logger `flashsloth.serving.access`. Out: lines on stderr.

    {"time": ..., "level": "INFO", "id": ..., "client": ..., "method": "POST", "route": "/v1/chat/completions",
     "status": 200, "seconds": 1.2, "first_token_seconds": 0.3, "tokens": 20, "pictures": 1, "finish_reasons": ["stop"]}

No line holds a prompt, a picture, a key, or anything else that a client wrote, but its request's id. JSON writes
control characters as escapes, so nobody can end a line. Of an error, the kind and the places in the code are logged,
not its message, which may quote a prompt.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

LOGGER = logging.getLogger("flashsloth.serving.access")
LOG = "flashsloth.log"
"""Under this key a route puts into its request's scope what knows more about it: something with `facts()`."""
LOGGED = ("flashsloth", "uvicorn", "asyncio")
"""The loggers whose records become lines."""
FACTS = "facts"
MOST_LINES = 10_000
"""That wait where stderr takes none; further ones are counted and dropped."""
FLUSH_SECONDS = 1.0
DECIMALS = 6


def write(facts: Mapping[str, Any]) -> None:
    """Log a request that has ended."""
    LOGGER.info("request", extra={FACTS: facts})


class Logged(Protocol):
    """What knows more about a request."""

    def facts(self) -> Mapping[str, Any]:
        """Numbers and words of our own; nothing that a client wrote."""


def describe_error(error: BaseException) -> str:
    """An error's kind, and the places in the code that it went through, without its message."""
    places = [f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)]
    return " ".join([type(error).__name__, *places])


class JsonFormatter(logging.Formatter):
    """A record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts = getattr(record, FACTS, None)
        if facts is None:
            facts = {"logger": record.name, "message": record.getMessage()}
            if record.exc_info and record.exc_info[1] is not None:
                facts["error"] = describe_error(record.exc_info[1])
        return json.dumps({"time": time, "level": record.levelname, **{name: _rounded(facts[name]) for name in facts}})


class LineWriter(logging.Handler):
    """Writes lines to stderr in a thread of its own: a terminal or a pipe that stalls delays no request.

    A stderr that is closed, or full, loses lines and stops nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._lines: queue.Queue[str | threading.Event] = queue.Queue(MOST_LINES)
        self._dropped = 0
        threading.Thread(target=self._write, name="flashsloth log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Let a record be written; never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything is written, but not for long."""
        done = threading.Event()
        try:
            self._lines.put(done, timeout=seconds)
        except queue.Full:
            return
        done.wait(seconds)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                line += "\n" + json.dumps({"level": "WARNING", "message": f"{dropped} lines were not logged"})
            _write_line(line)


def _write_line(line: str) -> None:
    """Past Python's own buffer, which would keep what could not be written and complain at the end."""
    left = f"{line}\n".encode()
    try:
        descriptor = sys.stderr.fileno()
        while left:
            left = left[os.write(descriptor, left) :]
    except (OSError, ValueError, AttributeError):  # closed, a broken pipe, a full disk, no stream with a number
        return


@contextmanager
def logging_to_stderr(level: int = logging.INFO) -> Iterator[LineWriter]:
    """A block in which everything that is logged becomes lines on stderr, and nothing else does."""
    writer = LineWriter()
    loggers = [logging.getLogger(name) for name in LOGGED]
    before = [(one.handlers, one.level, one.propagate) for one in loggers]
    for one in loggers:
        one.handlers, one.propagate = [writer], False
        one.setLevel(level if one.name == LOGGED[0] else logging.ERROR)
    try:
        yield writer
    finally:
        writer.flush()
        for one, (handlers, old_level, propagate) in zip(loggers, before, strict=True):
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(old_level)


def _rounded(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value
