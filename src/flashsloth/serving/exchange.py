"""One request and its reply, from the request's headers to the reply's last byte.

In: what ASGI gives an application. Out: the request's body, in one piece; an application that is ended when its client
leaves or the server ends; a reply that is always whole: an answer, or an error in OpenAI's form.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from flashsloth.serving import access_log, reply_headers
from flashsloth.serving.api_error import ApiError, failed, unavailable
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.request_headers import JSON, Headers, body_length, given_id, has_no_body, text

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONNECTION = "flashsloth.connection"
"""The extension under which our own protocol tells when the request must have come, and lets a connection be cut."""
STREAM_ERROR = "flashsloth.error"
"""Under this key a route puts into its request's scope the error with which a reply that had begun ended."""
EVENTS = "text/event-stream"
CLIENT_LEFT = 499
"""What is logged as the status where the client left before there was one; nginx's number."""
LEAVE_SECONDS = 5.0
"""That an application has to end in after its client left."""
END_SECONDS = 1.0
"""That the last words may take."""
BODIES_BYTES = 1 << 30
"""Of all bodies together that are held."""


def late_request(seconds: float) -> ApiError:
    """408: a request that was too slow."""
    return ApiError(408, f"the request did not come within {seconds:g} s: send it faster", code="request_timeout")


class ClientLeftError(OSError):
    """Nobody reads the reply any more."""


class Bodies:
    """Counts the bytes of all bodies that a server holds."""

    def __init__(self) -> None:
        self.held = 0


class Exchange:
    """One request and its reply.

    Args:
        config: limits.
        bodies: of all exchanges.
        scope, receive, send: what ASGI gives.
        is_page: whether it is for a file of the page.
    """

    def __init__(
        self, config: ServeConfig, bodies: Bodies, scope: Scope, receive: Receive, send: Send, is_page: bool
    ) -> None:
        self._config, self._bodies, self._receive, self._send, self._is_page = config, bodies, receive, send, is_page
        self._started = time.monotonic()
        self._connection = scope.get("extensions", {}).get(CONNECTION)
        self.headers: Headers = scope["headers"]
        self.request_id = given_id(self.headers) or f"req_{uuid.uuid4().hex}"
        self._scope: Scope = {**scope, "asgi": {**scope["asgi"], "spec_version": "2.4"}}
        self._scope["flashsloth.request_id"] = self.request_id
        self.reply_headers: Headers = [(b"x-request-id", self.request_id.encode())]
        self._status: int | None = None
        self._size = 0
        self._is_stream = self._is_complete = self._is_over = self._has_left = False
        self._error: str | None = None
        self._end: ApiError | None = None
        self._is_read = has_no_body(self.headers)
        self._given: list[Message] = []
        self._reading: asyncio.Timeout | None = None
        self._watcher: asyncio.Future[None] | None = None

    async def read_body(self) -> None:
        """Take the request's body in.

        Raises:
            ApiError: 413 where it is too large, 408 where it does not come, 503 where too much is held already.
            ClientLeftError: if the client leaves meanwhile.
        """
        announced, limit = body_length(self.headers), self._config.max_body_bytes
        if announced is not None and announced > limit:
            raise self._too_large()
        seconds = self._config.receive_seconds
        by = asyncio.get_running_loop().time() + seconds if self._connection is None else self._connection.receive_by
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout_at(by) as self._reading:
                while not self._is_read:
                    pieces.append(await self._receive_piece())
                    if self._size > limit:
                        raise self._too_large()
        except TimeoutError:
            raise self._end or late_request(seconds) from None
        self._given.append({"type": "http.request", "body": b"".join(pieces), "more_body": False})

    async def run(self, app: App) -> None:
        """Let an application reply, until it is done, its client leaves, or the exchange is ended."""
        if self._end is not None:
            await self.refuse(self._end)
            return
        left = asyncio.Event()

        async def receive() -> Message:
            if self._given:
                return self._given.pop()  # the application may let go of it
            await left.wait()
            return {"type": "http.disconnect"}

        running = asyncio.ensure_future(app(self._scope, receive, self._send_for_app))
        self._watcher = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait({running, self._watcher}, return_when=asyncio.FIRST_COMPLETED)
            if self._is_complete and self._end is None:  # the client has everything: what is left is the application's
                await asyncio.wait({running})
        finally:
            self._watcher.cancel()
            self._is_over = not running.done()
            running.cancel()
        left.set()
        if not self._is_over:
            await self._conclude(running)
        elif self._end is not None:
            await self._say_end(self._end)
        else:
            self._has_left = True
            await asyncio.wait({running}, timeout=LEAVE_SECONDS)

    def end(self, error: ApiError) -> None:
        """End the application, and tell the client why."""
        self._end = error
        if self._watcher is not None:
            self._watcher.cancel()
        elif self._reading is not None and not self._is_read:
            self._reading.reschedule(0)

    async def refuse(self, error: ApiError) -> None:
        """Reply with an error; the connection ends with it where a body may still be coming."""
        content = json.dumps(error.body).encode()
        headers = {"Content-Type": JSON, "Content-Length": str(len(content)), **error.headers}
        if not self._is_read:
            headers["Connection"] = "close"
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.reply(int(error.status), encoded, content)

    async def reply(self, status: int, headers: Headers, content: bytes = b"") -> None:
        """Send a whole reply."""
        await self._forward({"type": "http.response.start", "status": status, "headers": headers})
        await self._forward({"type": "http.response.body", "body": content})

    def close(self) -> None:
        """Log it, once it is over."""
        self._bodies.held -= self._size
        route = self._scope.get("route")
        refusal = None if self._connection is None else self._connection.refusal
        client = self._scope.get("client")
        facts = {
            "id": self.request_id,
            "client": client[0] if client else None,
            "method": self._scope["method"],
            "route": getattr(route, "path_format", getattr(route, "path", None)),
            "status": self._status or int(refusal.status if refusal is not None else CLIENT_LEFT),
            "seconds": time.monotonic() - self._started,
        }
        log: access_log.Logged | None = self._scope.get(access_log.LOG)
        if log is not None:
            facts.update(log.facts())
        ended = self._end or self._scope.get(STREAM_ERROR)
        if self._has_left:
            facts["left"] = True
        elif ended is not None:
            facts["ended"] = ended.code
        if self._error is not None:
            facts["error"] = self._error
        access_log.write(facts)

    async def _send_for_app(self, message: Message) -> None:
        if self._is_over:
            raise ClientLeftError("the client has left")
        await self._forward(message)

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            own = list(message.get("headers", []))
            self._is_stream = text(own, b"content-type").startswith(EVENTS)
            message = {**message, "headers": reply_headers.complete(own, self.reply_headers, self._is_page)}
        elif not message.get("more_body", False):
            self._is_complete = True
        await self._send(message)

    async def _watch(self) -> None:
        """Until the client leaves, or has the whole reply."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _conclude(self, running: asyncio.Future[None]) -> None:
        """Make a reply whole that an application did not, whose fault that is."""
        error: BaseException | None = asyncio.CancelledError() if running.cancelled() else running.exception()
        if isinstance(error, ApiError) and self._status is None:
            await self.refuse(error)
            return
        if error is not None and not isinstance(error, ClientLeftError):
            self._error = access_log.describe_error(error)
        if not self._is_complete:
            self._error = self._error or "the application ended before its reply"
            await self._say_end(failed("the server failed: this is not your mistake but ours"))

    async def _say_end(self, error: ApiError) -> None:
        """The last words: a reply, or the last event of one that has begun."""
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                if self._status is None:
                    await self.refuse(error)
                elif self._is_stream and not self._is_complete:
                    event = b"data: " + json.dumps(error.body).encode() + b"\n\n"
                    await self._forward({"type": "http.response.body", "body": event})
        if not self._is_complete and self._connection is not None:
            self._connection.abort()
            await asyncio.sleep(0)  # the connection is lost now

    async def _receive_piece(self) -> bytes:
        """A further piece of the body."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._has_left = True
            raise ClientLeftError
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        self._bodies.held += len(piece)
        if self._bodies.held > BODIES_BYTES:
            raise unavailable("the server holds too many large requests: ask again in 1 s", 1)
        self._is_read = not message.get("more_body", False)
        return piece

    def _too_large(self) -> ApiError:
        most = self._config.max_body_bytes
        message = f"the request's body is larger than {most:,} bytes: send fewer or smaller pictures"
        return ApiError(413, message, code="request_too_large")
