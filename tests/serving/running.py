"""Servers in a thread of this process, with our protocol and guards, and clients that send what no library would."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flashsloth.serving.access_log import LOGGER, JsonFormatter
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.exchange import App
from flashsloth.serving.listening import bind
from flashsloth.serving.server import Server

PATIENCE = 60.0
"""Seconds after which a test gives up on a condition."""
Headers = dict[str, str]
JSON = {"Content-Type": "application/json"}


@dataclass
class Reply:
    """What a client got; status 0 if the connection ended without a reply."""

    status: int = 0
    headers: Headers = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Its error, which has OpenAI's form."""
        assert self.headers["content-type"] == "application/json"
        assert set(self.json) == {"error"}
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert "\n" not in error["message"]
        assert error["code"] is None or isinstance(error["code"], str)
        return error


class Lines(logging.Handler):
    """Keeps what is logged, as the lines that a server would write."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def of(self, request_id: str) -> list[dict[str, Any]]:
        """Lines of a request."""
        found = [json.loads(line) for line in self.lines]
        return [one for one in found if one.get("id") == request_id]


@dataclass
class Running:
    """A server that runs."""

    server: Server
    port: int
    log: Lines

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A connection."""
        made = socket.socket()
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(PATIENCE)
        made.connect(("127.0.0.1", self.port))
        return made

    def raw(self, content: bytes) -> Reply:
        """Send bytes, and read a reply."""
        with self.connect() as connection:
            send_all(connection, content)
            return read_reply(connection, has_body=not content.startswith(b"HEAD"))

    def ask(self, method: str, path: str, headers: Headers | None = None, body: bytes = b"") -> Reply:
        """A request on a connection of its own."""
        return self.raw(request(method, path, headers, body))

    def post(self, path: str, content: Any, headers: Headers | None = None) -> Reply:
        """Send JSON."""
        return self.ask("POST", path, {**JSON, **(headers or {})}, json.dumps(content).encode())

    def logged(self) -> int:
        """Lines so far, those of every request that has got its reply included."""
        wait_for(lambda: not self.server.guards._exchanges)
        return len(self.log.lines)

    @property
    def connections(self) -> int:
        """That are open."""
        return len(self.server.server_state.connections)


def request(method: str, path: str, headers: Headers | None = None, body: bytes = b"") -> bytes:
    """A request as it is sent; Host and Content-Length unless they are given."""
    sent = {"Host": "localhost", **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def send_all(connection: socket.socket, content: bytes) -> int:
    """Send until the other side takes no more; how much was sent."""
    sent = 0
    try:
        while sent < len(content):
            sent += connection.send(content[sent : sent + 65536])
    except OSError:  # it may have replied before
        pass
    return sent


def read_reply(connection: socket.socket, *, has_body: bool = True) -> Reply:
    """One reply, to its end, or what there is of it."""
    held = b""
    while b"\r\n\r\n" not in held:
        if not (more := _receive(connection)):
            return Reply(body=held)
        held += more
    head, _, rest = held.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(headers) == len(lines), lines
    reply = Reply(int(first.split()[1]), headers)
    if not has_body:
        return reply
    if headers.get("transfer-encoding") == "chunked":
        while not rest.endswith(b"0\r\n\r\n") and (more := _receive(connection)):
            rest += more
        reply.body = _joined(rest)
    elif reply.status not in (204, 304):
        while len(rest) < int(headers["content-length"]) and (more := _receive(connection)):
            rest += more
        reply.body = rest
    return reply


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


def _joined(chunked: bytes) -> bytes:
    joined = b""
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        joined += rest[: int(size, 16)]
        chunked = rest[int(size, 16) + 2 :]
    return joined


def wait_for(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What a condition gives once it is true."""
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return found


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection that has nothing more to say."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@contextmanager
def running(app: App, page: tuple[str, ...] | None = None, **limits: Any) -> Iterator[Running]:
    """A server of an application, at a port of its own, until the block ends."""
    config = ServeConfig(**{"port": 0, **limits})
    sockets = bind(config)
    ready = threading.Event()
    server = Server(app, config, page=page, on_ready=lambda url: ready.set())
    log = Lines()
    before = LOGGER.level
    LOGGER.addHandler(log)
    LOGGER.setLevel(logging.INFO)
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield Running(server, sockets[0].getsockname()[1], log)
    finally:
        server.stop()
        thread.join(PATIENCE)
        LOGGER.removeHandler(log)
        LOGGER.setLevel(before)
        assert not thread.is_alive()


class PlainApp:
    """An application without a model, for what only guards and protocol are tested with.

    POST /size     how many bytes came, in how many pieces
    POST /stream   `events` of `bytes` each
    POST /wait     never ends by itself; with `starts`, after its first event
    POST /fail     breaks, with `starts` in the middle of a stream
    POST /says     replies with `headers`
    """

    def __init__(self) -> None:
        self.waiting = self.left = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        message = await receive()
        assert not message["more_body"]
        asked = json.loads(message["body"]) if message["body"].startswith(b"{") else {}
        if asked.get("starts"):
            await _start(send, [(b"content-type", b"text/event-stream")])
            await _more(send, b"data: 1\n\n")
        if scope["path"] == "/wait":
            await self._wait()
        elif scope["path"] == "/fail":
            raise RuntimeError("the secret picture")
        elif scope["path"] == "/stream":
            await _start(send, [(b"content-type", b"text/event-stream")])
            for _ in range(asked["events"]):
                await _more(send, b"x" * asked["bytes"])
            await send({"type": "http.response.body", "body": b""})
        else:
            headers = [(name.encode(), value.encode("latin-1")) for name, value in asked.get("headers", [])]
            content = json.dumps({"bytes": len(message["body"]), "path": scope["path"]}).encode()
            length = (b"content-length", str(len(content)).encode())
            await _start(send, [(b"content-type", b"application/json"), length, *headers])
            await send({"type": "http.response.body", "body": content})

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1
            self.left += 1


async def _start(send: Any, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _more(send: Any, content: bytes) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": True})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
