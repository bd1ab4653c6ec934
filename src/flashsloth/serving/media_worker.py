"""The process in which strangers' pictures are fetched, decoded and resized: without torch, model or keys.

In: questions (`media_messages.py`) through a socket that the server gave it. Out: a picture's views, or why there are
none. It may have so much memory, and so much processor time a picture; beyond, the system ends it, and the server
starts another (`media_workers.py`). It also ends when the server does, however that happens: the server's end of the
socket is closed then, and a worker that is busy meanwhile is ended by the clock.

A source is a data URL, or the URL of an allowed host (`media_fetch.py`). It is never a path: nothing here opens a file
that a request names.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import AvifImagePlugin

from flashsloth.media import data_url_bytes, open_picture
from flashsloth.media.limits import PictureError, cause
from flashsloth.media.open_image import DATA_SCHEME
from flashsloth.media.views import PictureViews, ViewSettings, picture_views
from flashsloth.serving import media_fetch
from flashsloth.serving.media_messages import FAILED, MAGIC, QUESTION, READY, REFUSED, text_reply, views_reply

POLITENESS = 5
"""Of `nice`: answers that are being made go before pictures that are still to be opened."""
IGNORED_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""They come to all processes of a terminal or a service; the server ends its workers itself, after the last answer."""
MOST_OPEN_FILES = 256
NAMELESS = "bytes: "
"""What a picture without a name is called in errors, which tells a client nothing."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told when it starts.

    Attributes:
        views: what is made of a picture.
        memory: bytes of address space.
        seconds: of processor time for one picture, and of the clock for fetching it.
        clock_seconds: of the clock for one picture: on a busy machine they pass while others compute.
        allowed_hosts: from which pictures are fetched.
        hook: a file of Python that is run first; of tests, which replace what asks for addresses and connects.
        socket: the number of the worker's end.
    """

    views: ViewSettings
    memory: int
    seconds: float
    clock_seconds: float
    allowed_hosts: tuple[str, ...] = ()
    hook: str | None = None
    socket: int = -1

    def arguments(self, number: int) -> str:
        """As JSON, for a worker whose socket has this number."""
        return json.dumps(asdict(replace(self, socket=number)))

    @classmethod
    def of(cls, arguments: str) -> WorkerSettings:
        """From JSON."""
        fields: dict[str, Any] = json.loads(arguments)
        return cls(**{**fields, "views": ViewSettings(**fields["views"])})


def main(arguments: str) -> None:
    """Answer questions until there are no more."""
    settings = WorkerSettings.of(arguments)
    with socket.socket(fileno=settings.socket) as channel:
        try:
            if settings.hook is not None:
                runpy.run_path(settings.hook)
            limit_process(settings.memory)
        except Exception as error:  # the server says so, and where it starts, it ends
            send(channel, text_reply(FAILED, f"{type(error).__name__}: {cause(error)}"))
            return
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # nobody reads it from here on
        send(channel, text_reply(READY))
        answer_questions(channel, settings)


def limit_process(memory: int) -> None:
    """Take from this process what it does not need."""
    for name in IGNORED_SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.nice(POLITENESS)
    sys.dont_write_bytecode = True
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each would take address space, one for every processor there is
    import resource  # not on all systems: who imports this module for its settings needs none of it

    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: MOST_OPEN_FILES}
    if sys.platform == "linux":  # macOS gives every process more address space than this from the start
        limits[resource.RLIMIT_AS] = memory
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))


def answer_questions(channel: socket.socket, settings: WorkerSettings) -> None:
    """Until the server closes its end."""
    with channel.makefile("rb") as questions:
        while head := questions.read(QUESTION.size):
            magic, views, length = QUESTION.unpack(head)
            assert magic == MAGIC
            source = questions.read(length)
            if len(source) < length:
                return
            limit_time(settings.seconds, settings.clock_seconds)
            reply = answer(source, views, settings)
            limit_time(0, 0)
            send(channel, reply)


def limit_time(seconds: float, clock_seconds: float) -> None:
    """So long from now on the process lives; 0 for as long as it likes."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF and SIGALRM end a process that does not handle them
    signal.setitimer(signal.ITIMER_REAL, clock_seconds)


def answer(source: bytes, views: int, settings: WorkerSettings) -> list[bytes | memoryview]:
    """The reply to one question."""
    try:
        return views_reply(open_views(source.decode("utf-8", "surrogatepass"), views, settings))
    except PictureError as error:
        return text_reply(REFUSED, str(error).removeprefix(NAMELESS))
    except MemoryError:
        return text_reply(REFUSED, "the picture takes more memory than one may: shrink it")
    except Exception as error:  # a mistake of ours: the server writes it down, and starts another worker
        return text_reply(FAILED, f"{type(error).__name__}: {cause(error)}")


def open_views(source: str, views: int, settings: WorkerSettings) -> PictureViews:
    """Fetch or decode, open, resize.

    Raises:
        PictureError: for a picture that cannot be used.
    """
    if source[: len(DATA_SCHEME)].lower() == DATA_SCHEME:
        data = data_url_bytes(source)
    else:
        data = media_fetch.fetch(source, settings.allowed_hosts, settings.seconds)
    return picture_views(open_picture(data), settings.views, views)


def send(channel: socket.socket, reply: list[bytes | memoryview]) -> None:
    """The whole of a reply."""
    for part in reply:
        channel.sendall(part)


if __name__ == "__main__":
    main(sys.argv[1])
