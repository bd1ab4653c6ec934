"""A stream's bytes, and that whatever ends it gives back what it held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from flashsloth.serving.api_error import late
from flashsloth.serving.event_stream import EventStream

PATIENCE = 60.0


class Client:
    """Takes in what a stream sends; from some message on it takes no more."""

    def __init__(self, most: int | None = None) -> None:
        self.messages: list[Any] = []
        self.is_stuck = asyncio.Event()
        self._most = most

    async def send(self, message: Any) -> None:
        if self._most is not None and len(self.messages) >= self._most:
            self.is_stuck.set()
            await asyncio.Event().wait()
        self.messages.append(message)

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.messages).decode()


class Held:
    """Events, and what must be given back."""

    def __init__(self) -> None:
        self.given_back: list[str] = []
        self.stack = AsyncExitStack()
        self.stack.callback(self.given_back.append, "place")

    async def events(self, *events: Any) -> AsyncGenerator[Any]:
        try:
            for event in events:
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, asyncio.Event):
                    await event.wait()
                else:
                    yield event
        finally:
            self.given_back.append("events")


async def sent(stream: EventStream, client: Client) -> None:
    async with asyncio.timeout(PATIENCE):
        await stream({"type": "http"}, None, client.send)  # type: ignore[arg-type]


def test_events_and_their_end() -> None:
    async def run() -> None:
        held, client = Held(), Client()
        await sent(EventStream(held.events({"a": "é"}, {"b": 1}), held.stack, PATIENCE), client)
        assert client.text == 'data: {"a":"é"}\n\ndata: {"b":1}\n\ndata: [DONE]\n\n'
        assert [message.get("more_body") for message in client.messages[1:]] == [True, True, False]
        assert held.given_back == ["events", "place"]

    asyncio.run(run())


def test_an_error_is_the_last_event() -> None:
    async def run() -> None:
        held, client = Held(), Client()
        await sent(EventStream(held.events({"a": 1}, late(2.0)), held.stack, PATIENCE), client)
        *_, last, end = client.text.split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
        assert end == ""
        assert held.given_back == ["events", "place"]

    asyncio.run(run())


def test_a_fault_is_told_and_raised() -> None:
    async def run() -> None:
        held, client = Held(), Client()
        with pytest.raises(RuntimeError, match="secret"):
            await sent(EventStream(held.events({"a": 1}, RuntimeError("secret")), held.stack, PATIENCE), client)
        assert "internal_error" in client.text
        assert "secret" not in client.text
        assert held.given_back == ["events", "place"]

    asyncio.run(run())


def test_events_have_their_names_where_clients_expect_them() -> None:
    async def run() -> None:
        held, client = Held(), Client()
        events = held.events({"type": "x.created"}, late(2.0))
        error = {"type": "x.failed"}
        stream = EventStream(events, held.stack, PATIENCE, named=True, on_error=lambda _: error, is_done=False)
        await sent(stream, client)
        assert (
            client.text
            == 'event: x.created\ndata: {"type":"x.created"}\n\nevent: x.failed\ndata: {"type":"x.failed"}\n\n'
        )

    asyncio.run(run())


def test_silence_is_broken_by_comments() -> None:
    async def run() -> None:
        held, client, more = Held(), Client(), asyncio.Event()
        stream = asyncio.create_task(sent(EventStream(held.events(more, {"a": 1}), held.stack, 0.01), client))
        async with asyncio.timeout(PATIENCE):
            while client.text.count(": ping\n\n") < 3:
                await asyncio.sleep(0.01)
        more.set()
        await stream
        assert client.text.endswith('data: {"a":1}\n\ndata: [DONE]\n\n')

    asyncio.run(run())


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_whoever_leaves_gives_everything_back(taken: int) -> None:
    """Before the first byte, before the first event, and among events."""

    async def run() -> None:
        held, client = Held(), Client(taken)
        stream = asyncio.create_task(sent(EventStream(held.events({"a": 1}, {"b": 2}), held.stack, PATIENCE), client))
        async with asyncio.timeout(PATIENCE):
            await client.is_stuck.wait()
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream
        assert "place" in held.given_back
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(run())
