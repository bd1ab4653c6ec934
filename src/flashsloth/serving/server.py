"""A server, from its first socket to its exit status.

    serve(app, config, ...) -> exit status

SIGTERM, SIGINT or SIGHUP ends it well: nothing new is accepted, what was accepted is finished, within a time; then 0.
A second one ends it at once. If the engine dies or hangs, all clients are told, and the process ends with 1, whatever
its threads do; whoever started it starts it again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import uvicorn

from flashsloth.inference.engine.engine_thread import EngineThread
from flashsloth.serving.access_log import LOGGER, LineWriter, logging_to_stderr
from flashsloth.serving.api_error import ApiError, failed, unavailable
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.exchange import App
from flashsloth.serving.guards import guarded
from flashsloth.serving.http_protocol import LimitedProtocol
from flashsloth.serving.listening import BACKLOG, bind, url_of
from flashsloth.serving.watchdog import LOOK_SECONDS, Watchdog

HANGUP = getattr(signal, "SIGHUP", None)
"""Which comes when the terminal is closed that the server runs in."""
HEARD = tuple(one for one in (signal.SIGINT, signal.SIGTERM, HANGUP) if one is not None)
FAILED, SIGNALLED = 1, 128
"""Exit statuses: the engine has failed; ended by a second signal, plus its number."""
LAST_WORDS_SECONDS = 1.0
"""In which applications may end their replies by themselves, once the engine has failed."""
HURRY_SECONDS = 0.3
"""In which clients are told after a second signal; `AT_ONCE_SECONDS` later the process ends, whatever it does."""
AT_ONCE_SECONDS = 0.5
CLOSE_SECONDS = 2
"""In which connections, and then the application, may close."""
RETRY_SECONDS = 5
"""After which a client should ask again where a server ends: another may be there by then."""


class Server(uvicorn.Server):
    """Runs an application until it is told to end.

    Args:
        app: to run; it is guarded here.
        config: limits.
        log: that is flushed before a sudden end.
        page: paths that need no key; None for those of our page.
        engine: that is watched.
        on_ready: is called with the server's address once it accepts requests.

    Attributes:
        is_cut_short: whether it ended before all its requests did, so that the engine may be in the midst of them.
    """

    def __init__(
        self,
        app: App,
        config: ServeConfig,
        log: LineWriter | None = None,
        *,
        page: Collection[str] | None = None,
        engine: EngineThread | None = None,
        on_ready: Callable[[str], None] = lambda url: None,
    ) -> None:
        self.guards = guarded(app, config, page, early=True)
        super().__init__(_uvicorn_config(self.guards, config))
        self.limits = config
        self._log, self._engine, self._on_ready = log, engine, on_ready
        self.is_cut_short = False
        self._told: list[int] = []
        self._is_told = asyncio.Event()
        self._supervision: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """End it well; from any thread."""
        self._hear(signal.SIGTERM)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept requests from now on."""
        self._loop = asyncio.get_running_loop()
        if self._told:
            self._is_told.set()
        await super().startup(sockets)
        self._supervision = asyncio.create_task(self._supervise(url_of(self.limits, sockets or [])))
        self._supervision.add_done_callback(self._check_supervision)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything; what does not close in time is left."""
        with suppress(TimeoutError):
            await asyncio.wait_for(super().shutdown(sockets), 2 * CLOSE_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear signals, in the main thread; unlike uvicorn, do not raise them again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [one for one in HEARD if one != HANGUP or signal.getsignal(one) != signal.SIG_IGN]  # nohup's
        before = [signal.signal(number, lambda number, _: self._hear(number)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _hear(self, number: int) -> None:
        """Take a signal in, at any moment and in any thread."""
        if number == HANGUP and self._told:  # a terminal that is closed may say so twice, and is in no hurry
            return
        self._told.append(number)
        if len(self._told) > 1:  # whatever the event loop and the engine do
            threading.Timer(HURRY_SECONDS + AT_ONCE_SECONDS, os._exit, (SIGNALLED + number,)).start()
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._is_told.set if len(self._told) == 1 else self._hurry)

    async def _supervise(self, url: str) -> None:
        """Wait until the application has started, watch its engine until a signal comes, and end."""
        if await self._wait_for_start():
            with suppress(OSError):  # nobody reads it
                self._on_ready(url)
            await self._run_until_told()
        self.should_exit = True

    async def _wait_for_start(self) -> bool:
        waits = [asyncio.ensure_future(one.wait()) for one in (self.guards.has_started, self._is_told)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        if not self.guards.has_started.is_set():  # what it starts with may take long, and nobody waits for it now
            self._exit(0)
        return self.guards.startup_error is None

    async def _run_until_told(self) -> None:
        watchdog = None if self._engine is None else Watchdog(self._engine)
        while not self._is_told.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_told.wait(), LOOK_SECONDS)
            problem = watchdog and watchdog.problem()
            if problem:
                await self._fail(problem)
        await self._drain(watchdog)

    async def _drain(self, watchdog: Watchdog | None) -> None:
        """Finish what was accepted, and accept nothing new."""
        self._refuse(unavailable("the server is ending: ask again, or ask another", RETRY_SECONDS))
        if self.guards.under_way:
            text = "ending once %d requests are answered, in %g s at most; another signal, or Ctrl-C, ends it at once"
            LOGGER.info(text, self.guards.under_way, self.limits.drain_seconds)
        end = asyncio.get_running_loop().time() + self.limits.drain_seconds
        idle = asyncio.ensure_future(self.guards.wait_until_idle())
        while not idle.done() and asyncio.get_running_loop().time() < end:
            await asyncio.wait({idle}, timeout=LOOK_SECONDS)
            problem = watchdog and watchdog.problem()
            if problem:
                await self._fail(problem)
        self.is_cut_short = not idle.done()
        idle.cancel()
        if self.is_cut_short:
            LOGGER.warning("ended before %d requests were answered", self.guards.under_way)
        self.guards.end(unavailable("the server ended before the answer did: ask again, or ask another", RETRY_SECONDS))
        with suppress(TimeoutError):
            await asyncio.wait_for(self.guards.wait_until_idle(), LAST_WORDS_SECONDS)

    async def _fail(self, problem: str) -> None:
        """Tell everybody that the engine has failed, and end the process."""
        LOGGER.error("%s", problem)
        self._refuse(
            unavailable("the engine has failed, and the server ends: ask again, or ask another", RETRY_SECONDS)
        )
        for error in (None, failed("the engine has failed: this is not your mistake")):
            if error is not None:
                self.guards.end(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.guards.wait_until_idle(), LAST_WORDS_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.lifespan.shutdown(), LAST_WORDS_SECONDS)
        self._exit(FAILED)

    def _refuse(self, error: ApiError) -> None:
        error.headers["Connection"] = "close"
        self.guards.refuse(error)
        for connection in self.server_state.connections:
            if isinstance(connection, LimitedProtocol):
                connection.end_after_reply()

    def _hurry(self) -> None:
        """End, but tell the clients."""
        self.guards.end(unavailable("the server was ended: ask again, or ask another", RETRY_SECONDS))
        asyncio.get_running_loop().call_later(HURRY_SECONDS, self._exit, SIGNALLED + self._told[-1])

    def _check_supervision(self, supervision: asyncio.Task[None]) -> None:
        """Without it no signal would be obeyed."""
        if not supervision.cancelled() and (error := supervision.exception()) is not None:
            LOGGER.error("the server failed", exc_info=error)
            self._exit(FAILED)

    def _exit(self, status: int) -> None:
        """End the process now: its engine's thread may never return."""
        if self._log is not None:
            self._log.flush()
        os._exit(status)


def serve(
    app: App,
    config: ServeConfig,
    *,
    sockets: list[socket.socket] | None = None,
    page: Collection[str] | None = None,
    engine: EngineThread | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> int:
    """Run an application until a signal ends it.

    Args:
        app: an ASGI application, which is guarded here.
        config: where, and all limits.
        sockets: from :func:`flashsloth.serving.listening.bind`, where one wants to know early whether that works.
        page: paths that need no key; None for those of our page.
        engine: that is watched.
        on_ready: is called with the address once requests are accepted.

    Returns:
        The exit status: 0 after a signal. Where the engine fails, or at a second signal, the process ends here.

    Raises:
        ListenError: if it cannot listen there.
        Exception: with which the application fails to start.
    """

    def ready(url: str) -> None:
        gc.collect()
        gc.freeze()  # what there is by now stays: no collection, which stops everything, need look at it again
        on_ready(url)

    sockets = bind(config) if sockets is None else sockets
    raise_file_limit()
    with logging_to_stderr() as log:
        server = Server(app, config, log, page=page, engine=engine, on_ready=ready)
        server.run(sockets)
        if server.guards.startup_error is not None:
            raise server.guards.startup_error
        if server.is_cut_short:  # nobody waits for what the engine still does
            log.flush()
            os._exit(0)
    return 0


def raise_file_limit() -> None:
    """Let the process have as many open files, which connections are, as it may."""
    with suppress(ImportError, ValueError, OSError):  # Windows; a system that says more than it keeps
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _uvicorn_config(app: App, config: ServeConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=partial(LimitedProtocol, config),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=config.keep_alive_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
