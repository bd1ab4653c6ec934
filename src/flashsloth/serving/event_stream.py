"""A reply of server-sent events, one JSON object each.

data: {...}        an event
: ping             where nothing came for a while
data: [DONE]       the end, unless the last event is an error
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flashsloth.serving.api_error import ApiError, failed

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
Event = dict[str, Any]
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps makes one for each text


class EventStream(Response):
    """Sends events as they come.

    Args:
        events: of the reply; an :class:`ApiError` among them becomes the last one.
        held: is closed at the end, however it comes.
        ping_seconds: after which a comment is sent where nothing else is.
        headers: beside those of a stream.
        named: whether each event's `type` stands before it, as the Responses interface has it.
        on_error: what becomes of an error, where it is no plain error event; called with the error.
        is_done: whether the end is marked.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[Event],
        held: AsyncExitStack,
        ping_seconds: float,
        headers: Mapping[str, str] | None = None,
        *,
        named: bool = False,
        on_error: Callable[[ApiError], Event] = lambda error: error.body,
        is_done: bool = True,
    ) -> None:
        own = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers={**own, **(headers or {})})
        del self.headers["content-length"]
        self._events, self._held, self._ping_seconds = events, held, ping_seconds
        self._named, self._on_error, self._is_done = named, on_error, is_done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events; whoever cancels this ends them."""
        async with self._held:
            await self._send_all(scope, send)

    async def _send_all(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pings = asyncio.create_task(self._ping(send))
        end = DONE if self._is_done else b""
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    self._is_quiet = False
                    await _send(send, self._written(event))
        except ApiError as error:
            scope["flashsloth.error"] = error
            end = self._written(self._on_error(error))
        except Exception as error:  # a fault of ours: the status is sent, so the client learns of it here
            end = self._written(self._on_error(failed("the server made a mistake; its log has more")))
            await self._finish(pings, send, end)
            raise error
        finally:
            pings.cancel()
        await self._finish(pings, send, end)

    async def _finish(self, pings: asyncio.Task[None], send: Send, end: bytes) -> None:
        pings.cancel()
        with suppress(asyncio.CancelledError):
            await pings
        await _send(send, end, more=False)

    _is_quiet = True

    async def _ping(self, send: Send) -> None:
        while True:
            self._is_quiet = True
            await asyncio.sleep(self._ping_seconds)
            if self._is_quiet:
                await _send(send, PING)

    def _written(self, event: Event) -> bytes:
        name = f"event: {event['type']}\n" if self._named else ""
        return f"{name}data: {_json(event)}\n\n".encode()


async def _send(send: Send, content: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": more})
