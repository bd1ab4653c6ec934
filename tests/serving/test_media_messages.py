"""A worker is believed nothing: what does not fit the question ends it, and is never unpickled."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from picture_urls import png_url
from tiny import picture

from flashsloth.media import PictureError
from flashsloth.media.views import ViewSettings, digest, picture_views
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.media_messages import (
    FAILED,
    MAGIC,
    MOST_TEXT_BYTES,
    READY,
    REFUSED,
    REPLY,
    VIEWS,
    BrokenReply,
    parse_reply,
    text_reply,
    views_reply,
)
from flashsloth.serving.media_process import MediaError
from flashsloth.serving.media_workers import MediaWorkers

SIDE, COUNT = 4, 5
LENGTH = COUNT * SIDE * SIDE * 3
DIGEST = bytes(range(16))
HUGE = 1 << 62
PATIENCE = 60.0


def head(
    kind: int, width: int = 9, height: int = 7, views: int = COUNT, length: int = LENGTH, magic: bytes = MAGIC
) -> bytes:
    return REPLY.pack(magic, kind, DIGEST, width, height, views, length)


BROKEN = {
    "other bytes": b"x",
    "a pickle": pickle.dumps(os.system),
    "other magic": head(VIEWS, magic=b"FSM2"),
    "no kind": head(4),
    "ready again": head(READY, length=0),
    "too few views": head(VIEWS, views=1, length=SIDE * SIDE * 3),
    "another length": head(VIEWS, length=LENGTH - 1),
    "an endless length": head(VIEWS, length=HUGE),
    "no width": head(VIEWS, width=0),
    "a huge height": head(VIEWS, height=1 << 31),
    "a long text": head(REFUSED, length=MOST_TEXT_BYTES + 1),
    "an endless text": head(FAILED, length=HUGE),
    "more than it says": head(VIEWS) + bytes(LENGTH + 1),
    "more than a text": head(REFUSED, length=2) + b"abc",
}


def test_views_come_as_they_were_made_in_pieces_of_any_length() -> None:
    made = picture_views(picture(1, 9, 7), ViewSettings(SIDE, 2), COUNT)
    whole = b"".join(views_reply(made))
    chance = random.Random(0)
    received = bytearray()
    while len(received) < len(whole):
        assert parse_reply(received, COUNT, SIDE) is None
        received += whole[len(received) : len(received) + chance.randrange(1, 60)]
    reply = parse_reply(received, COUNT, SIDE)
    assert reply is not None
    assert reply.picture is not None
    assert (reply.picture.size, reply.picture.digest) == ((9, 7), digest(picture(1, 9, 7)))
    assert np.array_equal(reply.picture.views, made.views)


@pytest.mark.parametrize("kind", [REFUSED, FAILED])
def test_a_text_is_one_printable_line(kind: int) -> None:
    received = bytearray(b"".join(text_reply(kind, "line\r\n\x1b[31m\x00\u2028 ü " + "x" * 9000)))
    reply = parse_reply(received, COUNT, SIDE)
    assert reply is not None
    assert reply.text.isprintable()
    assert reply.text.startswith("line")
    assert " ü " in reply.text
    assert len(reply.text) <= MOST_TEXT_BYTES


def test_a_text_of_any_bytes_is_a_line() -> None:
    body = random.Random(1).randbytes(500)
    reply = parse_reply(bytearray(head(REFUSED, length=500) + body), COUNT, SIDE)
    assert reply is not None
    assert reply.text.isprintable()


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_reply_is_refused_at_once(case: str) -> None:
    with pytest.raises(BrokenReply):
        parse_reply(bytearray(BROKEN[case]), COUNT, SIDE)


def test_before_it_was_asked_a_worker_only_says_that_it_is_ready() -> None:
    assert parse_reply(bytearray(head(READY, length=0)), 0, SIDE) == (READY, "", None)
    with pytest.raises(BrokenReply):
        parse_reply(bytearray(head(VIEWS)), 0, SIDE)


def test_random_headers_never_break_the_server() -> None:
    chance, refused = random.Random(2), 0
    for _ in range(3000):
        received = bytearray(head(chance.randrange(5), length=chance.choice((0, 3, LENGTH))))
        for _ in range(chance.randrange(1, 4)):
            received[chance.randrange(len(received))] = chance.randrange(256)
        try:
            parse_reply(received, COUNT, SIDE)
        except BrokenReply:
            refused += 1
    assert 0 < refused < 3000


LYING_HOOK = """
import time
import __main__
from flashsloth.serving.media_messages import REFUSED, text_reply

whole = __main__.answer

def lie():
    yield {parts[0]!r}
    time.sleep(0.2)
    yield {parts[1]!r}

def answer(source, views, settings):
    return lie() if source == b"data:lie" else whole(source, views, settings)

__main__.answer = answer
"""
REFUSAL = b"".join(text_reply(REFUSED, "no"))
LIES = {
    "a pickle": (pickle.dumps(os.system), b""),
    "an endless length": (BROKEN["an endless length"], b""),
    "more than it says": (BROKEN["more than it says"], b""),
    "two replies": (REFUSAL * 2, b""),
    "a reply that nobody asked for": (REFUSAL, REFUSAL),
}


@pytest.mark.parametrize("case", LIES)
def test_a_worker_that_lies_is_ended(case: str, tmp_path: Path) -> None:
    """As one would that a stranger has taken over."""
    hook = tmp_path / "hook.py"
    hook.write_text(LYING_HOOK.format(parts=LIES[case]), encoding="utf-8")

    async def test() -> None:
        workers = MediaWorkers(ServeConfig(media_workers=1), ViewSettings(SIDE, 2), hook)
        await workers.start()
        try:
            async with asyncio.timeout(PATIENCE):
                [pid] = workers.pids
                with pytest.raises(PictureError) as failure:
                    await workers.prepare("data:lie")
                assert isinstance(failure.value, MediaError) == (not LIES[case][1])
                while pid in workers.pids:
                    await asyncio.sleep(0.01)
                assert (await workers.prepare(png_url(picture(1)))).digest == digest(picture(1))
        finally:
            await workers.close()

    asyncio.run(test())
