"""A request's headers, as ASGI has them: (name, value) pairs of bytes, names in small letters."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flashsloth.serving.api_error import ApiError, invalid

Headers = list[tuple[bytes, bytes]]
JSON = "application/json"
IDENTITY = "identity"
CONTROLS = re.compile(rb"[^ -~]")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def values(headers: Headers, name: bytes) -> list[bytes]:
    """All values under a name."""
    return [value for found, value in headers if found == name]


def text(headers: Headers, name: bytes) -> str:
    """The value under a name, in small letters; of several, all, with commas; "" without any."""
    return b",".join(values(headers, name)).decode("latin-1").strip().lower()


def given_id(headers: Headers) -> str | None:
    """The id that a client gave its request, if it is short and harmless."""
    found = values(headers, b"x-request-id")
    return found[0].decode() if len(found) == 1 and REQUEST_ID.fullmatch(found[0]) else None


def is_json(headers: Headers) -> bool:
    """Whether a body is said to be JSON."""
    return text(headers, b"content-type").partition(";")[0].strip() == JSON


def has_no_body(headers: Headers) -> bool:
    """Whether none is announced."""
    return not (values(headers, b"content-length") or values(headers, b"transfer-encoding"))


def body_length(headers: Headers) -> int | None:
    """Bytes of the body; None where they end with their last chunk.

    Raises:
        ApiError: 400 where two ways of saying it contradict each other, 415 for an encoding.
    """
    lengths, encoding = values(headers, b"content-length"), text(headers, b"transfer-encoding")
    if lengths and encoding:
        raise invalid("both Content-Length and Transfer-Encoding were sent; expected one of them")
    if encoding not in ("", "chunked"):
        raise unsupported("the body comes in a Transfer-Encoding that is not known; expected chunked, or none")
    if text(headers, b"content-encoding") not in ("", IDENTITY):
        raise unsupported("the body comes in a Content-Encoding; expected it as it is, not compressed")
    if encoding:
        return None
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,18}", one) for one in lengths):
        raise invalid("the Content-Length is not a number of bytes; expected one, in digits")
    return int(lengths[0]) if lengths else 0


def unsupported(message: str) -> ApiError:
    """415: the body is in a form that is not read."""
    return ApiError(415, message, code="unsupported_media_type")


def harmless(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """A reply's headers, in which no control character can end a line or begin another header."""
    return [(name, CONTROLS.sub(b"?", value)) for name, value in headers]
