"""One media worker, as the server sees it: a process that is started, asked for one picture at a time, and ended.

In: a picture's source. Out: its views, or a `PictureError`; a `MediaError` where the process did not survive it.

The event loop reads what the process sends, a piece at a time, and never more than was asked for; it does not wait for
it, and there is no thread.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import cast

from flashsloth.errors import FlashSlothError
from flashsloth.media.limits import PictureError, cause, shown
from flashsloth.media.views import PictureViews
from flashsloth.serving.media_messages import FAILED, READY, REFUSED, BrokenReply, Reply, parse_reply, question
from flashsloth.serving.media_worker import WorkerSettings

MODULE = "flashsloth.serving.media_worker"
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What a worker is told of the server's environment: no keys."""
FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Each thread would take address space, of which a worker has little."""
START_SECONDS = 60.0
END_SECONDS = 5.0
"""How long a process may take to be gone that was killed."""
POLL_SECONDS = 0.002
GRACE_SECONDS = 1.0
"""By which the server waits longer than the worker's own clock."""


class MediaError(PictureError):
    """A picture that the process opening it did not survive, or did not finish in time."""


class MediaUnavailable(FlashSlothError, RuntimeError):  # noqa: N818 - not an error of the picture
    """No picture can be opened now."""


class MediaProcess(asyncio.Protocol):
    """A running worker.

    Args:
        settings: of the worker.
        on_end: is called once with this object, in the event loop, when the worker has gone, whoever ended it.

    Attributes:
        pictures: that it was asked for so far.
    """

    def __init__(self, settings: WorkerSettings, on_end: Callable[[MediaProcess], None]) -> None:
        self.pictures = 0
        self._settings, self._on_end = settings, on_end
        self._received, self._views = bytearray(), 0
        self._reply: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._has_ended = False

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the process, and wait until it can be asked.

        Raises:
            MediaUnavailable: if it does not start.
        """
        ours, theirs = socket.socketpair()
        self._reply = asyncio.get_running_loop().create_future()
        try:
            with theirs:
                self._process = _spawn(self._settings, theirs)
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
            async with asyncio.timeout(START_SECONDS):
                reply = await self._reply
            if reply.kind != READY or self._has_ended:
                raise BrokenReply(reply.text or "it ended at once")
        except BaseException as error:
            if self._transport is None:
                ours.close()
            await self.end()
            if not isinstance(error, OSError | BrokenReply):  # TimeoutError is one of the first
                raise
            what = self._last_words() or cause(error)
            raise MediaUnavailable(f"no media worker starts: {what}") from error
        self._close_errors()

    async def ask(self, source: bytes, views: int) -> PictureViews:
        """The views of a picture.

        Raises:
            PictureError: if it cannot be used.
            MediaError: if the worker did not survive it: it is to be ended.
        """
        assert self._reply is None
        assert self._transport is not None
        self.pictures += 1
        self._views, self._reply = views, asyncio.get_running_loop().create_future()
        self._transport.write(question(source, views))
        self._transport.write(source)
        try:
            async with asyncio.timeout(self._settings.clock_seconds + GRACE_SECONDS):
                reply = await self._reply
        except TimeoutError as error:
            raise MediaError(_late(f"{self._settings.clock_seconds:g} s")) from error
        except OSError as error:
            raise MediaError(_epitaph(await self.end(), self._settings)) from error
        except BrokenReply as error:
            raise MediaError(f"the process that opened the picture broke down ({error}): save it as PNG") from error
        if reply.kind == REFUSED:
            raise PictureError(reply.text)
        if reply.kind == FAILED:
            raise MediaError(f"the picture cannot be opened ({reply.text}): save it as PNG")
        assert reply.picture is not None
        return reply.picture

    async def end(self) -> int:
        """End the process; how it ended: its own way, if it had ended before, else by a signal."""
        if self._transport is not None:
            self._transport.abort()
        if self._process is None:
            return 0
        self._process.kill()
        for _ in range(int(END_SECONDS / POLL_SECONDS)):
            if self._process.poll() is not None:
                break
            await asyncio.sleep(POLL_SECONDS)
        return self._process.returncode or 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        if self._reply is None or self._reply.done():  # it was not asked, or has answered
            self._fail(BrokenReply("it spoke unasked"))
            return
        self._received += data
        try:
            reply = parse_reply(self._received, self._views, self._settings.views.side)
        except BrokenReply as error:
            self._fail(error)
            return
        if reply is not None:
            self._received = bytearray()
            self._reply.set_result(reply)
            self._reply = None

    def connection_lost(self, error: Exception | None) -> None:
        self._has_ended = True
        self._fail(ConnectionResetError("the worker has ended"))
        self._on_end(self)

    def _fail(self, error: Exception) -> None:
        """Tell who waits, and hang up."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
        if self._transport is not None:
            self._transport.abort()

    def _last_words(self) -> str:
        """What a process that did not start has said at last."""
        if self._process is None or self._process.stderr is None or self._process.poll() is None:
            return ""
        lines = self._process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        self._close_errors()
        return shown(lines[-1])[1:-1] if lines else ""

    def _close_errors(self) -> None:
        """The worker writes there only until it has started."""
        if self._process is not None and self._process.stderr is not None:
            self._process.stderr.close()


def _spawn(settings: WorkerSettings, theirs: socket.socket) -> subprocess.Popen[bytes]:
    """A process that has its end of the socket, and nothing else of this one's."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    modules = os.pathsep.join(folder for folder in sys.path if folder)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", MODULE, settings.arguments(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(theirs.fileno(),),
        env={**environment, **FEW_THREADS, "PYTHONPATH": modules},
    )


def _late(limit: str) -> str:
    return f"the picture takes more than {limit} to open: shrink it"


def _epitaph(code: int, settings: WorkerSettings) -> str:
    """What a worker's end means for the picture that it was opening."""
    if code == -signal.SIGPROF:
        return _late(f"{settings.seconds:g} s of processor time")
    if code == -signal.SIGALRM:
        return _late(f"{settings.clock_seconds:g} s")
    if code == -signal.SIGKILL:
        return "the process that opened the picture was killed, most likely for want of memory: shrink it"
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    return f"the picture ended the process that opened it ({how}): save it again as PNG or JPEG"
