"""The server's settings: every number that one may want to change.

In: nothing, or what a caller wants. Out: a :class:`ServeConfig`, checked.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any

from flashsloth.errors import FlashSlothError

MIB = 1 << 20
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
LARGEST_PORT = 65535
HOST = re.compile(r"[^\s/?#@,]+")
"""What a Host can be: anything else would never be met."""
ORIGIN = re.compile(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@,]+/?")
"""What an Origin can be, and * for any."""
AT_LEAST_ONE = (
    "max_running",
    "max_tokens",
    "max_pictures",
    "max_body_bytes",
    "header_bytes",
    "max_connections",
    "media_workers",
    "media_memory",
    "media_pictures",
)
"""Fields that count something of which there must be one."""


class ServeError(FlashSlothError, ValueError):
    """A server cannot be started as it was asked for."""


@dataclass(frozen=True)
class ServeConfig:
    """How a server works.

    Attributes:
        host, port: where it listens; port 0 for one that is free.
        max_running: answers that are made at once; further requests wait.
        max_waiting: requests that wait at most; one more is refused, with the time after which to ask again.
        deadline: seconds from when a request is accepted to its last token.
        max_tokens: the longest answer of a request that does not say.
        max_pictures: in one request.
        max_body_bytes, header_bytes: of one request.
        receive_seconds: within which a request's headers and body must have come.
        reader_seconds: after which a client that reads nothing is cut off.
        keep_alive_seconds: for which a connection stays open without a request.
        max_connections: at once.
        ping_seconds: between comments in a stream that has nothing to say yet.
        drain_seconds: that accepted requests have to end in, once the server is told to.
        media_workers: processes that fetch, decode and resize pictures.
        media_seconds: of processor time that a picture may take, and by the clock six times as many.
        media_memory: that it may take, in bytes of address space.
        media_pictures: after which a worker is replaced.
        allow_hosts: names beside loopback's that requests may be addressed to.
        allow_origins: other sites whose pages may ask.
        allow_media_hosts: from which pictures are fetched; none by default.
        api_keys: one of them is required where there are any.
        model_names: that requests may name the model by, the first being its own.

    Raises:
        ServeError: for a value that cannot be.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_running: int = 32
    max_waiting: int = 128
    deadline: float = 600.0
    max_tokens: int = 512
    max_pictures: int = 8
    max_body_bytes: int = 20 * MIB
    header_bytes: int = 64 << 10
    receive_seconds: float = 30.0
    reader_seconds: float = 30.0
    keep_alive_seconds: float = 5.0
    max_connections: int = 2048
    ping_seconds: float = 15.0
    drain_seconds: float = 30.0
    media_workers: int = 2
    media_seconds: float = 5.0
    media_memory: int = 2048 * MIB
    media_pictures: int = 1000
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    allow_media_hosts: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    model_names: tuple[str, ...] = ("nano",)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, float):
                _check_seconds(field.name, value)
            elif isinstance(field.default, int):
                _check_count(field.name, value, 1 if field.name in AT_LEAST_ONE else 0)
            elif isinstance(field.default, tuple):
                _check_texts(field.name, value)
        if self.port > LARGEST_PORT:
            raise ServeError(f"port is {self.port}; expected 0 to {LARGEST_PORT}")
        if not self.model_names:
            raise ServeError("model_names is empty; expected at least the model's own name")
        for host in self.allow_hosts:
            if not HOST.fullmatch(host):
                raise ServeError(f"--allow-host is {host!r}; expected HOST or HOST:PORT, without http:// and path")
        for origin in self.allow_origins:
            if not ORIGIN.fullmatch(origin):
                raise ServeError(f"--allow-origin is {origin!r}; expected https://HOST or https://HOST:PORT, or *")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK_NAMES


def _check_seconds(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ServeError(f"{name} is {value!r}; expected seconds, more than 0")


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ServeError(f"{name} is {value!r}; expected a whole number of at least {least}")


def _check_texts(name: str, value: Any) -> None:
    if not isinstance(value, tuple) or not all(isinstance(one, str) and one for one in value):
        shown = "something else" if name == "api_keys" else repr(value)  # a key is shown nowhere
        raise ServeError(f"{name} is {shown}; expected a tuple of texts that are not empty")
