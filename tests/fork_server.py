"""A Python that has imported everything and starts processes by forking: one for all who run tests at the same time.

In: connections. Each may ask once: a call to make, where, with which environment, and three streams. Out: the process's
number at once, and its exit code at its end. A process is killed when the one who asked for it goes; the server ends
when the last has gone.

    python fork_server.py SOCKET                     the server
    python fork_server.py SOCKET -c CODE ...         stands for the process of such a call: streams, signals, exit code
    python fork_server.py SOCKET -m MODULE ...
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

STREAMS = (0, 1, 2)
NUMBER = struct.Struct("!q")
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
WAITING = 100


class Request(NamedTuple):
    """A process that is asked for.

    Attributes:
        call: function and arguments, pickled: its modules are imported in the process.
        path: what `sys.path` is there; empty for the server's.
        folder: where it works.
        environment: its variables.
        streams: those of stdin, stdout and stderr that it has, which come with the request.
    """

    call: bytes
    path: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]


def connect(address: str) -> socket.socket:
    """A connection to the server.

    Raises:
        OSError: if there is none.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def ask(address: str, path: list[str], function: Callable[..., Any], *arguments: Any) -> tuple[socket.socket, int]:
    """Let a process make a call, with this one's folder, environment and streams; where its end is told, its number."""
    streams = [stream for stream in STREAMS if _is_open(stream)]  # before the connection takes a closed one's number
    connection = connect(address)
    call = pickle.dumps((function, arguments))
    content = pickle.dumps(tuple(Request(call, path, os.getcwd(), dict(os.environ), streams)))
    socket.send_fds(connection, [NUMBER.pack(len(content))], streams)
    connection.sendall(content)
    return connection, read_number(connection)


def read_number(connection: socket.socket) -> int:
    """What the server says next.

    Raises:
        EOFError: if it has ended.
    """
    return int(NUMBER.unpack(_read(connection, NUMBER.size))[0])


def _read(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = connection.recv(size - len(content))
        if not piece:
            raise EOFError("the server of processes has ended")
        content += piece
    return content


def _is_open(stream: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(stream)
        return True
    return False


class Server:
    """Forks for everyone who is connected."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._processes: dict[socket.socket, int] = {}
        """Connection -> its process, 0 before it asked."""
        self._selector = selectors.DefaultSelector()
        self._ended, self._ending = os.pipe()
        os.set_blocking(self._ending, False)
        signal.set_wakeup_fd(self._ending)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (listener, self._ended):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Comes back in every process that was asked for, with its request; in the server itself, at its end."""
        served = False
        while self._processes or not served:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    connection, served = self._listener.accept()[0], True
                    self._processes[connection] = 0
                    self._selector.register(connection, selectors.EVENT_READ)
                elif key.fileobj == self._ended:
                    os.read(self._ended, WAITING)
                    self._tell_ends()
                elif key.fileobj in self._processes and (request := self._hear(key.fileobj)):  # type: ignore[arg-type]
                    return request
        return None

    def _hear(self, connection: socket.socket) -> Request | None:
        """What one says: it is gone, or asks; the request, in the process that it asks for."""
        streams: list[int] = []
        try:
            start, streams, _, _ = socket.recv_fds(connection, NUMBER.size, len(STREAMS))
            request = Request(*pickle.loads(_read(connection, *NUMBER.unpack(start)))) if start else None
        except (OSError, EOFError):  # it went while it asked, or before it heard the answer
            request = None
        if request is None:
            if process := self._processes[connection]:
                os.kill(process, signal.SIGKILL)  # its end is heard, and told to nobody
            self._forget(connection)
        elif process := os.fork():
            self._processes[connection] = process
            self._tell(connection, process)
        if request is None or process:
            for stream in streams:
                os.close(stream)
            return None
        self._leave_all()
        _put_streams(dict(zip(request.streams, streams, strict=True)))
        return request

    def _tell_ends(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for connection, process in [*self._processes.items()]:
                    if process == ended[0]:
                        self._tell(connection, os.waitstatus_to_exitcode(ended[1]))
                        self._forget(connection)

    def _tell(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):  # who asked may be gone
            connection.sendall(NUMBER.pack(number))

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
        del self._processes[connection]

    def _leave_all(self) -> None:
        """In a new process: nothing here is its business."""
        signal.set_wakeup_fd(-1)  # newer Pythons have none after a fork
        os.close(self._ending)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._ended)
        self._selector.close()
        for connection in (self._listener, *self._processes):
            connection.close()


def _put_streams(streams: dict[int, int]) -> None:
    """Make these descriptors, all above the three, stdin, stdout and stderr, or None where one is missing."""
    for stream in STREAMS:
        if stream in streams:
            os.dup2(streams[stream], stream)
            os.close(streams[stream])
        else:
            os.close(stream)
    for stream, name in enumerate(("stdin", "stdout", "stderr")):
        opened = None
        if stream in streams:
            errors = "backslashreplace" if name == "stderr" else "strict"
            opened = open(stream, "w" if stream else "r", errors=errors, closefd=False)  # noqa: SIM115
            opened.reconfigure(line_buffering=name == "stderr" or opened.isatty())
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)


def make_call(request: Request) -> None:
    """Do what was asked, in the process that was forked for it."""
    import multiprocessing

    sys.path[:] = request.path or sys.path
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as where nobody has set another
    function, arguments = pickle.loads(request.call)
    function(*arguments)


def run_command(kind: str, what: str, *arguments: str) -> None:
    """Be `python -c CODE ...`, or `python -m MODULE ...`."""
    import runpy

    sys.argv[:] = [kind, *arguments]
    if kind == "-c":
        exec(what, {"__name__": "__main__"})
    else:
        sys.modules.pop(what, None)  # run_module warns of one that is there
        runpy.run_module(what, run_name="__main__", alter_sys=True)


def stand_for(address: str, command: list[str]) -> int:
    """Have a command run in a process of the server's, and be it for whoever started this one; its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # the process may be heard of before it is known here
    connection, process = ask(address, [], run_command, *command)
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(process, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    code = read_number(connection)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def main(address: str, *command: str) -> None:
    """Be the server, or stand for a process."""
    if command:
        sys.exit(stand_for(address, [*command]))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(WAITING)  # from here on, whoever asks waits for the imports
    import preloaded  # noqa: F401

    request = Server(listener).serve()
    if request is not None:
        make_call(request)


if __name__ == "__main__":
    main(*sys.argv[1:])
