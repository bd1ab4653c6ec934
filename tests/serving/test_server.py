"""How a server begins and ends, in processes of their own: D1, D2, signals, streams that are closed."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import PATIENCE, Lines, PlainApp, Reply, Running, is_closed, read_reply, wait_for
from served_process import HANGS, RAISES, Served, chat, events

from flashsloth.serving.config import ServeConfig, ServeError
from flashsloth.serving.listening import bind
from flashsloth.serving.server import Server, serve

STREAMS = 16
DONE = "[DONE]"


@dataclass
class Client:
    """Asks again and again, until it is not answered any more."""

    served: Served
    number: int
    replies: list[tuple[float, Reply]] = field(default_factory=list)
    """When each was sent, and what came."""

    def run(self) -> None:
        while not self.replies or self.replies[-1][1].status == 200:
            sent = time.monotonic()
            try:
                with self.served.connect() as connection:
                    connection.sendall(chat(tokens=40, number=self.number))
                    reply = read_reply(connection)
            except ConnectionError:
                reply = Reply()
            self.replies.append((sent, reply))


def drain(served: Served, wait: Callable[[], None]) -> None:
    """Have clients ask, end the server in the midst, and check that what was accepted was finished."""
    clients = [Client(served, number) for number in range(STREAMS)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    wait_for(lambda: sum(len(client.replies) for client in clients) >= STREAMS)
    wait()
    told = time.monotonic()
    served.signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert served.exit_code() == 0
    assert time.monotonic() - told < 30
    for client in clients:
        for sent, reply in client.replies:
            if reply.status == 200:
                assert events(reply)[-1] == DONE
            elif reply.status == 503:
                assert reply.headers["connection"] == "close"
                assert int(reply.headers["retry-after"]) > 0
                assert reply.error["code"] == "server_unavailable"
            else:  # nobody listened any more
                assert reply.body == b""
                assert sent > told


class SlowApp(PlainApp):
    """Takes its time to start, and may fail to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.go_on, self._error = threading.Event(), error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await asyncio.to_thread(self.go_on.wait)
            if self._error is not None:
                raise self._error
        await super().__call__(scope, receive, send)


def test_it_listens_before_it_is_ready() -> None:
    app, urls = SlowApp(), list[str]()
    config = ServeConfig(port=0)
    sockets = bind(config)
    server = Server(app, config, on_ready=urls.append)
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    one = Running(server, sockets[0].getsockname()[1], Lines())
    assert one.ask("GET", "/health/live").status == 200
    for refused in (one.ask("GET", "/health/ready"), one.post("/size", {})):
        assert refused.status == 503
        assert refused.headers["retry-after"] == "2"
    assert not urls
    app.go_on.set()
    wait_for(lambda: one.ask("GET", "/health/ready").status == 200)
    assert one.post("/size", {}).status == 200
    wait_for(lambda: urls == [f"http://127.0.0.1:{one.port}"])
    server.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_an_application_that_cannot_start() -> None:
    app = SlowApp(ServeError("there is no model"))
    app.go_on.set()
    with pytest.raises(ServeError, match="there is no model"):
        serve(app, ServeConfig(port=0))


def test_sigterm_lets_what_was_accepted_end(tmp_path: Path) -> None:
    served = Served(tmp_path).wait_until_ready()
    drain(served, lambda: None)
    lines = [one for one in served.lines if one.get("route") == "/v1/chat/completions"]
    assert {one["status"] for one in lines} <= {200, 503}
    assert all(one["tokens"] == 40 and one["finish_reasons"] == ["length"] for one in lines if one["status"] == 200)


@pytest.mark.slow
def test_sigterm_200_times_at_random(tmp_path: Path) -> None:
    draws = random.Random(0)
    for number in range(200):
        folder = tmp_path / str(number)
        folder.mkdir()
        drain(Served(folder).wait_until_ready(), lambda: time.sleep(draws.uniform(0, 1.5)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_while_it_drains(tmp_path: Path, number: int) -> None:
    served = Served(tmp_path, drain_seconds=1.0).wait_until_ready()
    assert served.status("/health/ready") == 200
    served.signal(HANGS)
    with served.connect() as stream, served.connect() as whole, served.connect() as idle:
        stream.sendall(chat())
        whole.sendall(chat(stream=False))
        assert stream.recv(1000).startswith(b"HTTP/1.1 200")
        served.signal(number)
        wait_for(lambda: served.status("/health/ready") == 503)
        assert served.status("/health/live") == 200
        refused = served.ask("POST", "/v1/chat/completions", {"Content-Type": "application/json"}, b"{}")
        assert refused.status == 503
        if number == signal.SIGHUP:
            served.signal(number)  # as a shell may, beside the terminal
        reply = read_reply(whole)  # after a second, it is ended
        assert reply.status == 503
        assert reply.error["code"] == "server_unavailable"
        assert b'"error"' in read_rest(stream)
        assert is_closed(idle)
    served.process.join()
    assert served.process.exitcode == 0
    told = [line["message"] for line in served.lines if "message" in line]
    assert "ending once 2 requests are answered, in 1 s at most; another signal, or Ctrl-C, ends it at once" in told
    assert "ended before 2 requests were answered" in told


def read_rest(connection: object) -> bytes:
    """All that comes until the end."""
    held = b""
    while more := connection.recv(65536):  # type: ignore[attr-defined]
        held += more
    return held


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    served = Served(tmp_path).wait_until_ready()
    workers = psutil.Process(served.process.pid).children(recursive=True)
    served.signal(HANGS)
    with served.connect() as stream:
        stream.sendall(chat())
        assert stream.recv(1000).startswith(b"HTTP/1.1 200")
        served.signal(signal.SIGTERM)
        wait_for(lambda: served.status("/health/ready") == 503)
        told = time.monotonic()
        served.signal(signal.SIGTERM)
        assert b'"error"' in read_rest(stream)
        assert served.exit_code() == 128 + signal.SIGTERM
        assert time.monotonic() - told < 1.5
    wait_for(lambda: not any(map(runs, workers)))


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)  # whoever inherits it may never ask for its end
    except psutil.NoSuchProcess:
        return False


def check_end_by_engine(served: Served, seconds: float, breaks: int) -> None:
    """Break the engine while it answers; everybody is told, nobody is let in, and the process ends."""
    workers = psutil.Process(served.process.pid).children(recursive=True)
    assert workers  # that open pictures
    with served.connect() as stream, served.connect() as whole:
        stream.sendall(chat(tokens=900))
        wait_for(lambda: b"content" in stream.recv(65536))
        whole.sendall(chat(stream=False, tokens=900))
        served.signal(breaks)
        broken = time.monotonic()
        wait_for(lambda: served.status("/health/ready") != 200)
        assert time.monotonic() - broken < seconds
        last = read_rest(stream).decode().split("data: ")[-1]
        error = json.loads(last.partition("\n")[0])["error"]
        assert error["type"] == "server_error"
        assert read_reply(whole).error["type"] == "server_error"
    assert served.exit_code() == 1
    wait_for(lambda: not any(map(runs, workers)))
    assert "secret" not in "".join(line for line in served.log.splitlines() if '"id"' in line)


def test_an_engine_that_dies(tmp_path: Path) -> None:
    check_end_by_engine(Served(tmp_path).wait_until_ready(), 2.0, RAISES)


def test_an_engine_that_hangs(tmp_path: Path) -> None:
    served = Served(tmp_path, patience=1.5).wait_until_ready()
    check_end_by_engine(served, 4.0, HANGS)
    assert any("it hangs" in one.get("message", "") for one in served.lines)


@pytest.mark.slow
def test_an_engine_that_hangs_with_the_patience_of_a_real_server(tmp_path: Path) -> None:
    check_end_by_engine(Served(tmp_path).wait_until_ready(), 15.0, HANGS)


@pytest.mark.parametrize("stderr", ["closed", "broken", "full"])
def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path, stderr: str) -> None:
    served = Served(tmp_path, stderr=stderr).wait_until_ready()
    with served.connect() as connection:
        for _ in range(600):  # more than a pipe holds
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_reply(connection).status == 200
    served.signal(signal.SIGTERM)
    assert served.exit_code() == 0
