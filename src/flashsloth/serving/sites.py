"""Whom a request is addressed to, and whose page sent it.

In: a request's Host and Origin. Out: nothing, an error, or the headers that let another site's page read the reply.

A page of any site can make a browser send requests to this machine, by its address or by a name that it lets point
here. So requests for names that are not ours are refused, and so are those of other sites' pages, but the allowed ones.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flashsloth.serving.api_error import ApiError, invalid
from flashsloth.serving.config import LOOPBACK_NAMES, ServeConfig
from flashsloth.serving.request_headers import Headers, is_json, text, unsupported, values

ANY = "*"
EVERYWHERE = ("", "0.0.0.0", "::")
"""Addresses to listen at that are nobody's name."""
PREFLIGHT_SECONDS = 600


class Sites:
    """The names of a server, and the sites whose pages may ask it.

    Args:
        config: its settings.
    """

    def __init__(self, config: ServeConfig) -> None:
        listens_at = () if config.host in EVERYWHERE else (config.host,)
        self._hosts = {one.lower().strip("[]") for one in (*LOOPBACK_NAMES, *listens_at, *config.allow_hosts)}
        self._origins = {one.lower().rstrip("/") for one in config.allow_origins}

    def check_host(self, headers: Headers) -> None:
        """Refuse what is addressed to somebody else.

        Raises:
            ApiError: 421, or 400 where no name, or more than one, was sent.
        """
        if len(values(headers, b"host")) != 1:
            raise invalid("the request has no Host, or several; expected one")
        host = text(headers, b"host")
        if ANY not in self._hosts and not {host, _name(host)} & self._hosts:
            message = (
                "the request's Host is not a name of this server; expected one given with --allow-host, or localhost"
            )
            raise ApiError(421, message, code="host_not_allowed")

    def check_origin(self, method: str, headers: Headers) -> Headers:
        """Refuse what another site's page sent.

        Returns:
            What lets the page of an allowed site read the reply.

        Raises:
            ApiError: 415 for a body that a browser sends without asking first, else 403.
        """
        origin = text(headers, b"origin")
        if not origin or self._is_own(origin, headers):
            return self._varies()
        if method == "POST" and not is_json(headers):
            raise unsupported("the body is not JSON; expected Content-Type: application/json")
        if ANY not in self._origins and origin not in self._origins:
            message = "the request comes from a page of another site; expected one given with --allow-origin"
            raise ApiError(403, message, code="origin_not_allowed")
        allowed = (b"access-control-allow-origin", values(headers, b"origin")[0])
        return [allowed, (b"access-control-expose-headers", b"*"), *self._varies()]

    def preflight(self, method: str, headers: Headers) -> Headers | None:
        """What a browser wants to know before it sends an allowed site's request; None if it does not ask."""
        asked = text(headers, b"access-control-request-method")
        if method != "OPTIONS" or not asked or not text(headers, b"origin"):
            return None
        told = {
            b"access-control-allow-methods": b"GET, POST",
            b"access-control-allow-headers": b"authorization, *",
            b"access-control-max-age": str(PREFLIGHT_SECONDS).encode(),
        }
        if text(headers, b"access-control-request-private-network") == "true":
            told[b"access-control-allow-private-network"] = b"true"
        return list(told.items())

    def _varies(self) -> Headers:
        return [(b"vary", b"Origin")] if self._origins else []

    @staticmethod
    def _is_own(origin: str, headers: Headers) -> bool:
        """Whether it is our own page's: the one that was loaded from where it asks."""
        scheme, _, netloc = origin.partition("://")
        return scheme in ("http", "https") and netloc == text(headers, b"host")


def _name(host: str) -> str:
    """A Host without its port; "" for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
