"""The media workers of a server: strangers' pictures become views in processes that may die of them.

    workers = MediaWorkers(config, image_processor.view_settings)
    await workers.start()
    known = workers.known(source)                          # which picture it is, if the same text was opened before
    views = await workers.prepare(source, resolution)      # PictureViews; PictureError; MediaUnavailable
    await workers.close()

A worker that dies, hangs or sends what it was not asked for is ended, and another is started; the picture that it had
is a :class:`MediaError`, which is a `PictureError`: the picture is at fault until the opposite is shown. Who stops
waiting for a picture that is being opened leaves the worker to finish it; one that waits for a worker leaves the queue.
Everything here happens in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from flashsloth.media.limits import PictureError
from flashsloth.media.open_image import DATA_SCHEME
from flashsloth.media.views import DIGEST_BYTES, PictureViews, ViewSettings
from flashsloth.model.configuration_flashsloth import views_of
from flashsloth.serving.config import ServeConfig, ServeError
from flashsloth.serving.media_fetch import OPTION, is_host
from flashsloth.serving.media_process import MediaError, MediaProcess, MediaUnavailable
from flashsloth.serving.media_worker import WorkerSettings

CLOCK_FACTOR = 6
"""A picture may take so many times longer by the clock than by the processor's time: others compute too, and first."""
MOST_KNOWN = 4096
"""Sources of which it is remembered which pictures they are: some hundreds of bytes each."""
RETRY_SECONDS = 1.0
"""Between attempts to start a worker that does not start."""
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class KnownPicture(NamedTuple):
    """Which picture a source was, when it was opened last.

    Attributes:
        digest: see :func:`flashsloth.media.views.digest`.
        size: (width, height), as it was opened.
    """

    digest: bytes
    size: tuple[int, int]


class MediaWorkers:
    """Opens pictures in processes of their own.

    Args:
        config: of the server.
        views: how its model wants views.
        hook: a file of Python that each worker runs first: of tests, which record what is connected to.

    Raises:
        ServeError: if an allowed host is no host's name.
    """

    def __init__(self, config: ServeConfig, views: ViewSettings, hook: Path | None = None) -> None:
        hosts = tuple(host.lower() for host in config.allow_media_hosts)
        for host in hosts:
            if not is_host(host):
                raise ServeError(f"{OPTION} is {host!r}; expected HOST or HOST:PORT, without http:// and path")
        self._config, self._grid = config, views.grid
        self._settings = WorkerSettings(
            views,
            config.media_memory,
            config.media_seconds,
            config.media_seconds * CLOCK_FACTOR,
            hosts,
            None if hook is None else str(hook),
        )
        self._most_waiting = (config.max_running + config.max_waiting) * config.max_pictures
        self._processes: set[MediaProcess] = set()
        self._free: deque[MediaProcess] = deque()  # never any while someone waits
        self._waiting: deque[asyncio.Future[MediaProcess]] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._restarts: set[asyncio.Task[Any]] = set()
        self._known: OrderedDict[bytes, KnownPicture] = OrderedDict()
        self._failure: MediaUnavailable | None = MediaUnavailable("no media worker was started")
        self._is_closed = False

    @property
    def pids(self) -> list[int]:
        """Of the workers' processes."""
        return [process.pid for process in self._processes]

    async def start(self) -> None:
        """Start the workers.

        Raises:
            MediaUnavailable: if one does not start; then none runs.
        """
        self._failure = None
        starts = [self._start_one() for _ in range(self._config.media_workers)]
        for failure in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(failure, BaseException):
                await self.close()
                raise failure

    def known(self, source: str) -> KnownPicture | None:
        """Which picture a data URL is, if the same was opened before."""
        key = _key(source.encode("utf-8", "surrogatepass")) if _is_data(source) else b""
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    async def prepare(self, source: str, resolution: str | None = None) -> PictureViews:
        """Open a picture and make its views.

        Args:
            source: a data URL, or the URL of an allowed host.
            resolution: "standard" for its whole view alone; None or "hd" for all views.

        Raises:
            PictureError: if the picture cannot be used, or takes too much (:class:`MediaError`).
            MediaUnavailable: if no worker can be had.
            ValueError: for a resolution that the model does not have.
        """
        count = views_of(resolution, self._grid)
        while (process := await self._take()) not in self._processes:
            pass  # it has ended since
        return await asyncio.shield(_background(self._tasks, self._ask(process, source, count)))

    async def close(self) -> None:
        """End all workers; who waits for one is told."""
        self._is_closed = True
        self._fail(MediaUnavailable("the server is ending, and opens no more pictures"))
        ended, self._processes = self._processes, set()
        self._free.clear()
        for restart in self._restarts:
            restart.cancel()
        await asyncio.gather(*(process.end() for process in ended))
        await asyncio.gather(*self._tasks, *self._restarts, return_exceptions=True)

    async def _take(self) -> MediaProcess:
        """A worker that has nothing to do: first come, first served."""
        if self._free:
            return self._free.popleft()
        if self._failure is not None:
            raise self._failure
        if len(self._waiting) >= self._most_waiting:
            raise MediaUnavailable(f"{len(self._waiting):,} pictures wait to be opened: ask again later")
        turn: asyncio.Future[MediaProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:  # its turn had just come
                self._give(turn.result())
            raise

    def _give(self, process: MediaProcess) -> None:
        """A worker has nothing to do: who waits for one longest has it."""
        if process not in self._processes:
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(process)
                return
        self._free.append(process)

    async def _ask(self, process: MediaProcess, source: str, count: int) -> PictureViews:
        data = source.encode("utf-8", "surrogatepass")
        try:
            made = await process.ask(data, count)
        except MediaError as error:
            if self._is_closed and self._failure is not None:  # it was ended in the middle
                raise self._failure from error
            _log.warning("a media worker is replaced: %s", error)
            self._replace(process)
            raise
        except PictureError:
            self._finish(process)
            raise
        self._finish(process)
        if _is_data(source):
            self._known[_key(data)] = KnownPicture(made.digest, made.size)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return made

    def _finish(self, process: MediaProcess) -> None:
        """A picture is done: another one, or another worker."""
        if process.pictures < self._config.media_pictures:
            self._give(process)
        else:
            self._replace(process)

    def _lost(self, process: MediaProcess) -> None:
        """A worker has ended, or was ended."""
        if process in self._free:
            _log.warning("a media worker has ended without a picture, and is replaced")
        self._replace(process)

    def _replace(self, process: MediaProcess) -> None:
        """End a worker and start another, once."""
        if process in self._processes:
            self._processes.discard(process)
            if process in self._free:
                self._free.remove(process)
            _background(self._tasks, process.end())
            _background(self._restarts, self._restart())

    async def _restart(self) -> None:
        """Start a worker, however often it takes."""
        while True:
            try:
                await self._start_one()
            except MediaUnavailable as error:
                _log.error("%s", error)
                if not self._processes:
                    self._fail(error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _start_one(self) -> None:
        process = MediaProcess(self._settings, self._lost)
        await process.start()
        self._failure = None
        self._processes.add(process)
        self._give(process)

    def _fail(self, failure: MediaUnavailable) -> None:
        """No worker is to be had: who waits for one, and who asks, is told so until there is one."""
        self._failure = failure
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(failure)
        self._waiting.clear()


def _background(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """A task that ends even if nobody waits for it any more."""
    task = asyncio.create_task(work)
    tasks.add(task)

    def forget(done: asyncio.Task[Any]) -> None:
        tasks.discard(done)
        if not done.cancelled():
            done.exception()  # or it would be called never retrieved, where the caller has gone

    task.add_done_callback(forget)
    return task


def _is_data(source: str) -> bool:
    return source[: len(DATA_SCHEME)].lower() == DATA_SCHEME


def _key(source: bytes) -> bytes:
    return hashlib.new("blake2b", source).digest()[:DIGEST_BYTES]
