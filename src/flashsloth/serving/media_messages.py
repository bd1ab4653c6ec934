"""What the server and its media workers say to each other: raw bytes after a header of fixed length.

    question   magic, how many views are wanted, length | where the picture is: a URL, UTF-8
    reply      magic, kind, digest, width, height, views, length | uint8 [views, side, side, 3], or a line of text

A worker that has decoded a stranger's picture may be the stranger's: nothing that it sends is unpickled, no length is
believed before it is checked, and what does not fit the question ends the worker.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from flashsloth.media.views import DIGEST_BYTES, PictureViews

MAGIC = b"FSM1"
QUESTION = struct.Struct("!4sIQ")
REPLY = struct.Struct(f"!4sB{DIGEST_BYTES}sIIIQ")
READY, VIEWS, REFUSED, FAILED = range(4)
"""Kinds of replies: it has started; the views; the picture cannot be used, and why; a mistake of ours, and which."""
MOST_TEXT_BYTES = 4096
MOST_SIDE = 1 << 20
NO_DIGEST = bytes(DIGEST_BYTES)


class BrokenReply(Exception):  # noqa: N818 - nobody but the server's end of a worker sees it
    """A worker sent what is no reply to its question."""


class Reply(NamedTuple):
    """A whole reply.

    Attributes:
        kind: see above.
        text: of a refusal or a failure, one printable line.
        picture: of views.
    """

    kind: int
    text: str = ""
    picture: PictureViews | None = None


def question(source: bytes, views: int) -> bytes:
    """The header before `source`."""
    return QUESTION.pack(MAGIC, views, len(source))


def views_reply(made: PictureViews) -> list[bytes | memoryview]:
    """Header and body of a picture's views."""
    pixels = np.ascontiguousarray(made.views)
    head = REPLY.pack(MAGIC, VIEWS, made.digest, *made.size, len(pixels), pixels.nbytes)
    return [head, pixels.data.cast("B")]


def text_reply(kind: int, text: str = "") -> list[bytes | memoryview]:
    """Header and body of any other reply."""
    body = text.encode("utf-8", "replace")[:MOST_TEXT_BYTES]
    return [REPLY.pack(MAGIC, kind, NO_DIGEST, 0, 0, 0, len(body)), body]


def parse_reply(received: bytearray, views: int, side: int) -> Reply | None:
    """What has been received so far, if it is a whole reply; None if more must come.

    Args:
        received: all bytes since the question; a reply of views keeps it.
        views: how many were asked for; 0 where only READY may come.
        side: of a view.

    Raises:
        BrokenReply: if it can become no reply to that question.
    """
    if len(received) < REPLY.size:
        if not MAGIC.startswith(received[: len(MAGIC)]):
            raise BrokenReply("a worker's reply begins with other bytes than a reply")
        return None
    magic, kind, digest, width, height, count, length = REPLY.unpack_from(received)
    if magic != MAGIC or kind not in ((VIEWS, REFUSED, FAILED) if views else (READY, FAILED)):
        raise BrokenReply("a worker's reply is of no kind that was asked for")
    if kind == VIEWS:
        fits = count == views and length == views * side * side * 3 and 0 < width < MOST_SIDE and 0 < height < MOST_SIDE
    else:
        fits = length <= MOST_TEXT_BYTES
    if not fits or len(received) > REPLY.size + length:
        raise BrokenReply("a worker's reply does not have the size that was asked for")
    if len(received) < REPLY.size + length:
        return None
    if kind == VIEWS:
        pixels = np.frombuffer(received, np.uint8, offset=REPLY.size).reshape(views, side, side, 3)
        return Reply(kind, picture=PictureViews((width, height), digest, pixels))
    text = bytes(received[REPLY.size :]).decode("utf-8", "replace")
    return Reply(kind, "".join(c if c.isprintable() else " " for c in text))
