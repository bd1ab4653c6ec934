"""A client that takes little of the machine it shares with the server it measures: HTTP/1.1 on an event loop.

    connection = await Connection.open(host, port)
    reply = await connection.ask(request("POST", "/v1/chat/completions", body))

Bytes are stamped as they come and read when all is over. Nothing is ever asked twice: what fails, fails.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from flashsloth.errors import FlashSlothError

CONTENT = re.compile(rb'"content":"[^"]')
"""What the first event with text of an answer holds."""
DATA, DONE = "data: ", "[DONE]"


class ConnectionEndedError(FlashSlothError, ConnectionError):
    """A connection ended before its reply did."""


@dataclass
class Reply:
    """What came for one request.

    Attributes:
        status: HTTP's; 0 while none has come.
        headers: by lower-case name.
        pieces: of the body, each with when it came.
        sent, ended: when the request was sent and the reply was whole.
    """

    sent: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    ended: float = 0.0

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(piece for _, piece in self.pieces)

    @property
    def seconds(self) -> float:
        """From the request to the reply's end."""
        return self.ended - self.sent

    @property
    def first_token(self) -> float | None:
        """Seconds to the first text of a stream."""
        return next((when - self.sent for when, piece in self.pieces if CONTENT.search(piece)), None)

    @property
    def is_stream(self) -> bool:
        """Whether it came as events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of a stream, without the mark of its end."""
        blocks = self.body.decode().split("\n\n")
        return [json.loads(one.removeprefix(DATA)) for one in blocks if one.startswith(DATA) and one != DATA + DONE]

    @property
    def json(self) -> Any:
        """Of a reply that is whole."""
        return json.loads(self.body)

    @property
    def retry_after(self) -> int | None:
        """Seconds after which the server wants to be asked again."""
        text = self.headers.get("retry-after", "")
        return int(text) if text.isdigit() else None


@dataclass(frozen=True)
class Answered:
    """An answer in a reply: its text, how it ended, its tokens; an error's message where it ended in one."""

    text: str
    finish_reason: str | None
    tokens: int
    error: str | None = None


def read_answer(reply: Reply) -> Answered:
    """The answer of a chat's reply, whole or streamed."""
    if reply.status != HTTPStatus.OK:
        return Answered("", None, 0, str(reply.json["error"]["message"]) if reply.body else "nothing")
    if not reply.is_stream:
        found = reply.json
        [choice] = found["choices"]
        return Answered(choice["message"]["content"], choice["finish_reason"], found["usage"]["completion_tokens"])
    text, reason, tokens, error = "", None, 0, None
    for event in reply.events:
        error = event["error"]["message"] if "error" in event else error
        for choice in event.get("choices", ()):
            text += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return Answered(text, reason, tokens, error)


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """A request as it is sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One connection, kept for one request after the other; made by :meth:`open`."""

    def __init__(self) -> None:
        import httptools  # an extra, that the server needs as well

        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self._done: asyncio.Future[None] | None = None
        self.is_open = False

    @classmethod
    async def open(cls, host: str, port: int, receive_buffer: int | None = None) -> Connection:
        """A connection to a server; the system holds at most so many bytes that were not read, if that is said."""
        plain = socket.socket()
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(plain, (host, port))
        except OSError:
            plain.close()
            raise
        _, made = await loop.create_connection(cls, sock=plain)
        return made

    @property
    def idle_seconds(self) -> float:
        """Since its last reply; 0 where there was none."""
        ended = 0.0 if self._reply is None else self._reply.ended
        return time.perf_counter() - ended if ended else 0.0

    @property
    def port(self) -> int:
        """Its own."""
        assert self._transport is not None
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    async def ask(self, content: bytes) -> Reply:
        """The reply to a request.

        Raises:
            ConnectionEndedError: if the connection ends before.
        """
        reply = self.send(content)
        await self.wait()
        return reply

    def send(self, content: bytes) -> Reply:
        """Send a request, whose reply grows from now on."""
        if not self.is_open or self._transport is None:
            raise ConnectionEndedError("the connection has ended: open another")
        self._reply = Reply(time.perf_counter())
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(content)
        return self._reply

    async def wait(self) -> None:
        """Until the reply is whole.

        Raises:
            ConnectionEndedError: if the connection ends before.
        """
        assert self._done is not None
        await self._done

    def abort(self) -> None:
        """Leave, at once and without a word."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read nothing from now on."""
        assert self._transport is not None
        self._transport.pause_reading()

    # Callbacks of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionEndedError(f"the connection ended before its reply did ({exc})"))
            self._done.exception()  # who left does not ask

    # Callbacks of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._reply is not None
        self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._reply is not None
        self._reply.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        assert self._reply is not None
        self._reply.pieces.append((time.perf_counter(), body))

    def on_message_complete(self) -> None:
        if self._reply is not None and self._done is not None and not self._done.done():
            self._reply.ended = time.perf_counter()
            self._done.set_result(None)
