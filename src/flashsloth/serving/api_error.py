"""What a client is told when its request is refused or fails: OpenAI's error object, and the status it comes with.

{ "error": { "message", "type", "param", "code" } }
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flashsloth.errors import FlashSlothError

INVALID, SERVER = "invalid_request_error", "server_error"
TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
"""Of errors that have a type of their own; others are the client's from 400 on, and the server's from 500."""
MOST_MESSAGE = 1000
MOST_PARAM = 200
"""Characters: what a client wrote may stand in both, and a megabyte of it is not sent back."""


class ApiError(FlashSlothError):
    """A request that ends without an answer.

    Args:
        status: of HTTP.
        message: one line: what was found, what was expected, what to do; cut where it is too long for one.
        param: the part of the request that it is about; cut likewise.
        code: a word for programs.
        headers: that the reply carries beside its own.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = _short(" ".join(message.split("\n")), MOST_MESSAGE)
        super().__init__(self.message)
        self.param = None if param is None else _short(param, MOST_PARAM)
        self.status, self.code = HTTPStatus(status), code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """What the reply holds, or the last event of a stream that had begun."""
        kind = TYPES.get(self.status, SERVER if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else INVALID)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the client's mistake."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, param, code)


def overloaded(message: str, seconds: int) -> ApiError:
    """429: ask again after so many seconds."""
    headers = {"Retry-After": str(seconds)}
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, message, code="server_overloaded", headers=headers)


def late(seconds: float) -> ApiError:
    """504: the deadline came before the answer's end."""
    message = f"the deadline of {seconds:g} s came before the answer's end: ask for fewer tokens, or ask again later"
    return ApiError(HTTPStatus.GATEWAY_TIMEOUT, message, code="deadline_exceeded")


def failed(message: str) -> ApiError:
    """500: not the client's mistake."""
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="internal_error")


def unavailable(message: str, seconds: int) -> ApiError:
    """503: the server answers nothing now."""
    headers = {"Retry-After": str(seconds)}
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, code="server_unavailable", headers=headers)
