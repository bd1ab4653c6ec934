"""What stands around the application: no request reaches it that should not, none stays that nobody waits for.

In: an ASGI application and a :class:`ServeConfig`. Out: an ASGI application. Its checks, in their order:

    to whom      Host is a name of this server; not asked of health and figures, since probes send an address   421
    from where   no page of another site, but the allowed ones                                             415, 403
    ending       the server is going to end, or its engine has                                                  503
    who          a key, but for health and the page's own files                                                 401
    what         a body in JSON, not compressed, of bounded size, that comes in time                  415, 413, 408

They are all made before the body is read. Each request that came to a reply, or left, is one line of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from flashsloth.serving.api_error import ApiError, unavailable
from flashsloth.serving.api_keys import ApiKeys
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.exchange import App, Bodies, ClientLeftError, Exchange, Message, Receive, Scope, Send
from flashsloth.serving.page_files import PAGE
from flashsloth.serving.request_headers import body_length, is_json, unsupported
from flashsloth.serving.sites import Sites

LIVE, READY, METRICS = "/health/live", "/health/ready", "/metrics"
ANY_HOST = (LIVE, READY, METRICS)
WHILE_ENDING = (LIVE, METRICS)
"""What is answered while nothing else is."""
START_RETRY_SECONDS = 2


def page_paths() -> frozenset[str]:
    """Where the page's files are: at the root, by their names."""
    return frozenset({"/", *(f"/{one.name}" for one in PAGE.glob("*.*"))})


class Guards:
    """An ASGI application around another.

    Args:
        app: that is guarded.
        config: limits, names, keys.
        page: paths of the page's files, which need no key; None for those of our page.
        early: whether the server may begin while the application starts, and refuse requests until it has.

    Attributes:
        has_started: set once the application has started, or failed to.
        startup_error: with which it failed.
    """

    def __init__(
        self, app: App, config: ServeConfig, page: Collection[str] | None = None, *, early: bool = False
    ) -> None:
        self._app, self._config, self._early = app, config, early
        self._page = page_paths() if page is None else frozenset(page)
        self._sites, self._keys = Sites(config), ApiKeys(config.api_keys)
        self._bodies = Bodies()
        self._exchanges: set[Exchange] = set()
        self._refusal = unavailable("the server is not ready yet: ask again", START_RETRY_SECONDS) if early else None
        self.has_started = asyncio.Event()
        self.startup_error: BaseException | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self._run_lifespan(scope, receive, send)
            return
        exchange = Exchange(self._config, self._bodies, scope, receive, send, scope["path"] in self._page)
        self._exchanges.add(exchange)
        self._idle.clear()
        try:
            await self._answer(exchange, scope)
        finally:
            exchange.close()
            self._exchanges.discard(exchange)
            if not self._exchanges:
                self._idle.set()

    def refuse(self, error: ApiError) -> None:
        """Answer every later request with an error."""
        self._refusal = error

    @property
    def under_way(self) -> int:
        """How many requests are."""
        return len(self._exchanges)

    async def wait_until_idle(self) -> None:
        """Until no request is under way."""
        await self._idle.wait()

    def end(self, error: ApiError) -> None:
        """End all requests that are under way, and tell their clients why."""
        for exchange in list(self._exchanges):
            exchange.end(error)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.has_started.set()
                self._refusal = None
            elif not message["type"].startswith("lifespan.startup"):
                await send(message)

        if not self._early or scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await send({"type": "lifespan.startup.complete"})
        try:
            await self._app(scope, receive, tell)
        except Exception as error:
            if self.has_started.is_set():
                raise
            self.startup_error = error
            self.has_started.set()

    async def _answer(self, exchange: Exchange, scope: Scope) -> None:
        try:
            self._check_sender(exchange, scope)
            asked = self._sites.preflight(scope["method"], exchange.headers)
            if asked is not None:
                await exchange.reply(204, asked)
                return
            self._check_key(exchange, scope)
            self._check_content(exchange, scope)
            await exchange.read_body()
        except ApiError as error:
            await exchange.refuse(error)
        except ClientLeftError:
            return
        else:
            await exchange.run(self._app)

    def _check_sender(self, exchange: Exchange, scope: Scope) -> None:
        path = scope["path"]
        if path not in ANY_HOST:
            self._sites.check_host(exchange.headers)
        exchange.reply_headers += self._sites.check_origin(scope["method"], exchange.headers)
        if self._refusal is not None and path not in WHILE_ENDING:
            raise self._refusal

    def _check_key(self, exchange: Exchange, scope: Scope) -> None:
        is_open = scope["path"] in self._page or scope["path"] in (LIVE, READY)
        if (is_open and scope["method"] in ("GET", "HEAD")) or self._keys.open_to(exchange.headers):
            return
        message = "the request names no key of this server; expected the header Authorization: Bearer KEY"
        raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _check_content(self, exchange: Exchange, scope: Scope) -> None:
        body_length(exchange.headers)
        if scope["method"] == "POST" and not is_json(exchange.headers):
            raise unsupported("the body is not JSON; expected Content-Type: application/json")


def guarded(app: App, config: ServeConfig, page: Collection[str] | None = None, *, early: bool = False) -> Guards:
    """An application that only answers requests that may be; see :class:`Guards`."""
    return Guards(app, config, page, early=early)
