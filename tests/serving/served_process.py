"""The shipped model served by a process of its own, which signals can end, and whose engine signals can break."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import forked
from running import JSON, PATIENCE, Reply, read_reply, request, send_all, wait_for

RAISES, HANGS = signal.SIGUSR1, signal.SIGUSR2
"""What an engine does in its next step, after which signal."""
LONG = "Describe everything that you can think of, and then count."


def serve_nano(folder: str, limits: dict[str, Any], stderr: str, patience: float | None) -> None:
    """What the process does; its address is in a file once it is ready, its log in another."""
    _put_stderr(Path(folder), stderr)
    import torch

    import flashsloth
    from flashsloth.serving import watchdog
    from flashsloth.serving.app import create_app
    from flashsloth.serving.config import ServeConfig
    from flashsloth.serving.server import serve
    from flashsloth.serving.service import Service

    if patience is not None:
        watchdog.LEAST_PATIENCE = patience
    torch.set_num_threads(1)  # before threads load: torch repairs after a fork what several cannot at once
    sloth = flashsloth.load()
    engine: Any = sloth.engine

    def fail() -> NoReturn:
        raise RuntimeError("the secret prompt")

    def hang() -> None:
        while True:
            time.sleep(PATIENCE)

    signal.signal(RAISES, lambda *_: setattr(engine, "step", fail))
    signal.signal(HANGS, lambda *_: setattr(engine, "step", hang))
    config = ServeConfig(**{"port": 0, **limits})
    app = create_app(Service(sloth, config))
    sys.exit(serve(app, config, engine=sloth.engine_thread, on_ready=lambda url: _write(Path(folder) / "url", url)))


def _put_stderr(folder: Path, kind: str) -> None:
    if kind == "file":
        descriptor = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    else:
        reading, descriptor = os.pipe()
        if kind == "broken":
            os.close(reading)
    os.dup2(descriptor, 2)
    if kind == "closed":
        os.close(2)


def _write(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


class Served:
    """A running process.

    Args:
        folder: for its address and its log.
        stderr: file, closed, broken (a pipe that nobody reads), or full (one that somebody holds and does not read).
        patience: of its watchdog, in seconds.
        **limits: of the server.
    """

    def __init__(self, folder: Path, *, stderr: str = "file", patience: float | None = None, **limits: Any) -> None:
        self._folder = folder
        self.process = forked.Process(serve_nano, str(folder), limits, stderr, patience)

    def wait_until_ready(self) -> Served:
        """Until it accepts requests."""
        wait_for(lambda: (self._folder / "url").exists() or not self.process.is_alive())
        assert self.process.is_alive(), self.log
        return self

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self._folder / "log").read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its lines, all of them JSON."""
        return [json.loads(line) for line in self.log.splitlines()]

    def connect(self) -> socket.socket:
        """A connection."""
        port = int((self._folder / "url").read_text().rpartition(":")[2])
        made = socket.create_connection(("127.0.0.1", port), PATIENCE)
        made.settimeout(PATIENCE)
        return made

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
        """A request on a connection of its own."""
        with self.connect() as connection:
            send_all(connection, request(method, path, headers, body))
            return read_reply(connection)

    def status(self, path: str) -> int:
        """Of a GET; 0 where nobody listens any more."""
        try:
            return self.ask("GET", path).status
        except ConnectionError:
            return 0

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def exit_code(self) -> int | None:
        """With which it ends."""
        assert self.process.join(PATIENCE), self.log
        return self.process.exitcode


def chat(*, stream: bool = True, tokens: int = 100, number: int = 0) -> bytes:
    """A request for an answer of so many tokens."""
    body = {
        "model": "nano",
        "messages": [{"role": "user", "content": f"{LONG} {number}"}],
        "stream": stream,
        "max_tokens": tokens,
        "logit_bias": {"1": -100},  # no end
    }
    return request("POST", "/v1/chat/completions", JSON, json.dumps(body).encode())


def events(reply: Reply) -> list[str]:
    """Of a stream."""
    return [
        part.removeprefix("data: ") for part in reply.body.decode().split("\n\n") if part and not part.startswith(":")
    ]
