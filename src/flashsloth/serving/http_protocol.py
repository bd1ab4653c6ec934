"""HTTP on one connection: uvicorn's protocol with limits on time and size that it lacks.

In: bytes of a client. Out: requests for the application, each with an extension that says until when its body must have
come, and that can cut the connection. The limits are :class:`ServeConfig`'s:

    receive_seconds   from the first byte of a request to its last, however the bytes are spread
    header_bytes      of the headers; header_bytes and max_body_bytes together of a request as it is sent
    reader_seconds    that a client may take nothing while something is there for it
    max_connections   at once

A request that is sent before the reply to the one before is complete is not answered: the connection ends with that
reply. What cannot be read as a request gets an error in OpenAI's form, and a line of the log.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import uuid
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from flashsloth.serving import access_log, reply_headers
from flashsloth.serving.api_error import ApiError, invalid, unavailable
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.exchange import CONNECTION, Message, Send, late_request
from flashsloth.serving.request_headers import JSON, has_no_body, values

LINGER_SECONDS, LINGER_BYTES = 1.0, 512 << 10
"""After an early reply what still comes is read and dropped for a while: a client that sends may only then read it."""
WITHOUT_CHUNKS = ("0.9", "1.0")
"""Versions of HTTP in which a reply has a length, or ends with the connection."""
PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""After how many seconds, how often and how many times a silent client is probed, where the system has it."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        limits: of the server.
        **uvicorn: what uvicorn gives its protocols.
    """

    def __init__(self, limits: ServeConfig, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self.receive_by = 0.0
        self.refusal: ApiError | None = None
        self._is_receiving = self._has_headers = self._is_deaf = False
        self._received = self._header_size = self._dropped = 0
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Cut the connection, whatever is still to be sent."""
        self.transport.abort()

    def end_after_reply(self) -> None:
        """Let the connection end with the reply that is under way."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_CountingTransport(transport, self))  # type: ignore[arg-type]
        _set_options(transport.get_extra_info("socket"), self._limits.reader_seconds)
        self._expect_request()
        if len(self.connections) > self._limits.max_connections:
            self._refuse(unavailable("the server has too many connections: ask again in 1 s", 1))

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._late, self._unread, self._linger):
            if timer is not None:
                timer.cancel()
        self._is_deaf = True
        super().connection_lost(exc)

    def eof_received(self) -> None:
        self._watch_reader()  # the transport closes now, once everything is sent

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._drop(data)
            return
        if not self._is_receiving:
            if not data.strip(b"\r\n"):
                return
            if self._is_replying():
                self._ignore_further()
                return
            self._expect_request()
        self._received += len(data)
        super().data_received(data)
        if self._is_deaf or not self._is_receiving:
            return
        if not self._has_headers and self._received > self._limits.header_bytes:
            self._refuse(_long_headers(self._limits))
        elif self._received > self._limits.header_bytes + self._limits.max_body_bytes + LINGER_BYTES:
            self.abort()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        if self._is_replying():
            self._ignore_further()
            return
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]
        self._has_headers, self._header_size = False, 0

    def on_url(self, url: bytes) -> None:
        if not self._is_deaf:
            self._header_size += len(url)
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_deaf and not self._has_headers:  # else trailers, which nobody asked for
            self._header_size += len(name) + len(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_deaf:
            return
        self._has_headers = True
        if self._header_size > self._limits.header_bytes:
            self._refuse(_long_headers(self._limits))
        elif self.parser.should_upgrade() and not has_no_body(self.headers):  # which the parser would pass over
            self._refuse(invalid("the request asks for another protocol and has a body: send it without Upgrade"))
        else:
            super().on_headers_complete()
            if self.scope["http_version"] in WITHOUT_CHUNKS:
                self.cycle.send = _sending_plainly(self.cycle)  # type: ignore[assignment, method-assign]

    def on_body(self, body: bytes) -> None:
        if not self._is_deaf:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_deaf:
            return
        self._is_receiving = False
        if self._late is not None:
            self._late.cancel()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_reader()
        if self._is_receiving:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed; a reply that is under way is broken off."""
        if self._is_deaf:
            return
        cycle = self.cycle
        if self._is_replying():
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.abort()
                return
        error = invalid("what was sent is not a request of HTTP/1.1")
        if self._is_replying():
            self.refusal = error  # for the line that its exchange logs
        self._refuse(error)

    def _unsupported_upgrade_warning(self) -> None:
        """Requests that would rather be of HTTP/2 or a WebSocket are answered as they are."""

    def close(self, transport: asyncio.Transport) -> None:
        """Close the connection, once everything is sent and a client that still sends can have read it."""
        if self._is_receiving and self._received:
            self._close_slowly()
        else:
            transport.close()
            self._watch_reader()

    def _close_slowly(self) -> None:
        self._is_deaf = True
        if self._late is not None:
            self._late.cancel()
        if self._linger is None and not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()
            self._linger = self.loop.call_later(LINGER_SECONDS, self.abort)

    def _is_replying(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_request(self) -> None:
        """From now on a request must come within its time."""
        self._is_receiving, self._has_headers, self._received = True, False, 0
        self.receive_by = self.loop.time() + self._limits.receive_seconds
        self._late = self.loop.call_at(self.receive_by, self._on_late)

    def _on_late(self) -> None:
        if self._is_replying():  # the guards tell
            return
        if not self._received:
            self.transport.close()
        else:
            self._refuse(late_request(self._limits.receive_seconds))

    def _ignore_further(self) -> None:
        """A further request came too early."""
        self._is_deaf = True
        self.cycle.keep_alive = False

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._linger is not None and self._dropped > LINGER_BYTES:
            self.flow.pause_reading()

    def _refuse(self, error: ApiError) -> None:
        """Reply with an error without having a request, and close."""
        request_id = f"req_{uuid.uuid4().hex}"
        content = json.dumps(error.body).encode()
        own = {"Content-Type": JSON, "Content-Length": str(len(content)), "Connection": "close", **error.headers}
        headers = reply_headers.complete(
            [(name.lower().encode(), value.encode()) for name, value in own.items()],
            [(b"x-request-id", request_id.encode())],
            is_page=False,
        )
        lines = b"".join(b"%s: %s\r\n" % one for one in [*self.server_state.default_headers, *headers])
        self.transport.write(STATUS_LINE[int(error.status)] + lines + b"\r\n" + content)
        if self.refusal is None:
            client = self.client[0] if self.client else None
            access_log.write({"id": request_id, "client": client, "status": int(error.status), "refused": error.code})
        self._close_slowly()

    def _watch_reader(self) -> None:
        """Cut the connection if the client takes nothing for too long."""
        if self._unread is None and self.transport.get_write_buffer_size():
            self._unread = self.loop.call_later(self._limits.reader_seconds, self._check_reader, self._taken())

    def _check_reader(self, taken: int) -> None:
        self._unread = None
        if self._taken() > taken:
            self._watch_reader()
        elif self.transport.get_write_buffer_size():
            self.abort()

    def _taken(self) -> int:
        """Bytes of replies that have gone out."""
        held = self.transport.get_write_buffer_size() + _sending(self.transport.get_extra_info("socket"))
        return self.transport.written - held  # type: ignore[attr-defined]


def _sending_plainly(cycle: RequestResponseCycle) -> Send:
    """How a reply is sent to a client that knows no chunks: where its length is not known, it ends the connection."""
    send, is_of_any_length = cycle.send, False

    async def plainly(message: Message) -> None:
        nonlocal is_of_any_length
        if message["type"] == "http.response.start":
            is_of_any_length = not values(list(message.get("headers", [])), b"content-length")
            cycle.chunked_encoding = False if is_of_any_length else None
        elif is_of_any_length:
            cycle.expected_content_length = len(message.get("body", b""))  # of the piece
        await send(message)  # type: ignore[arg-type]

    return plainly


class _CountingTransport:
    """A transport that counts what is written, and closes as its protocol wants it to."""

    def __init__(self, transport: asyncio.Transport, protocol: LimitedProtocol) -> None:
        self._transport, self._protocol = transport, protocol
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self._transport.write(data)

    def close(self) -> None:
        self._protocol.close(self._transport)


def _long_headers(limits: ServeConfig) -> ApiError:
    message = f"the request's headers are larger than {limits.header_bytes:,} bytes: send shorter ones"
    return ApiError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message, code="headers_too_large")


def _sending(connection: socket.socket) -> int:
    """Bytes that the system holds for a client; 0 where it does not say.

    It may hold megabytes, and asks for more only once a third of them is gone.
    """
    if sys.platform != "linux" or connection.fileno() < 0:
        return 0
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def _set_options(connection: socket.socket, reader_seconds: float) -> None:
    """Send at once what is small; and let the system find out that a client has vanished, or takes nothing."""
    with suppress(OSError):  # a socket of another family
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in {**PROBES, "TCP_USER_TIMEOUT": int(1000 * reader_seconds)}.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
