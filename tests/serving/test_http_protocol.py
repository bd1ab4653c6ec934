"""Limits on time and size, against a real server: S1 (short), S2, A2 (short), pipelining, what is no request."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from running import JSON, PlainApp, Running, is_closed, read_reply, request, running, send_all, wait_for

MIB = 1 << 20
MOST = 2 * MIB
SECONDS = 2.0
"""In which a request must come, and a reader must take something."""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    limits = {"receive_seconds": SECONDS, "reader_seconds": SECONDS, "keep_alive_seconds": 1.0}
    with running(PlainApp(), max_body_bytes=MOST, header_bytes=8192, **limits) as one:
        yield one


def test_slow_clients_are_cut_while_others_are_served(server: Running) -> None:
    check_slow_clients(server, 60, SECONDS)


@pytest.mark.slow
def test_slow_clients_of_a_real_server() -> None:
    with running(PlainApp()) as server:
        check_slow_clients(server, 500, 30.0)


def check_slow_clients(server: Running, count: int, seconds: float) -> None:
    """So many send a byte at a time, half of them of headers, half of a body, and are cut in time."""
    head = request("POST", "/size", {**JSON, "Content-Length": "1000"})
    slow = [(server.connect(), b"" if number % 2 else head) for number in range(count)]
    started = time.monotonic()
    for connection, sent in slow:
        connection.sendall(sent)
        connection.settimeout(0)
    is_over = threading.Event()

    def drip() -> None:
        while not is_over.wait(seconds / 30):
            for connection, sent in slow:
                send_all(connection, b"1" if sent else b"G")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        served = 0
        while server.connections > 5:  # a good client's own may be among them
            assert server.ask("GET", "/x").status == 200
            served += 1
            assert time.monotonic() - started < seconds + 30
        took = time.monotonic() - started
    finally:
        is_over.set()
        dripping.join()
    assert took >= seconds * 0.9
    assert served > 20
    for connection, sent in slow:
        connection.settimeout(10)
        reply = read_reply(connection)
        assert reply.status == (408 if sent else 400) or (not sent and reply.status == 408), reply
        connection.close()


@pytest.mark.parametrize("drips", [b"\r\n", b""])
def test_a_connection_without_a_request_is_closed(server: Running, drips: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(request("GET", "/x"))
        assert read_reply(connection).status == 200
        connection.settimeout(0.1)
        for _ in range(100):
            try:
                connection.sendall(drips)
                assert connection.recv(1) == b""
                return
            except TimeoutError:
                continue
            except ConnectionError:
                return
        raise AssertionError("it stays open")


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies(server: Running, chunked: bool) -> None:
    before = server.server.guards._bodies.held
    with server.connect() as connection:
        if chunked:
            connection.sendall(request("POST", "/size", {**JSON, "Transfer-Encoding": "chunked"}))
            sent = send_all(connection, (b"10000\r\n" + b"1" * 65536 + b"\r\n") * (20 * MOST // 65536))
        else:
            connection.sendall(request("POST", "/size", {**JSON, "Content-Length": str(20 * MOST)}))
            sent = send_all(connection, b"1" * (20 * MOST))
        reply = read_reply(connection)
        assert reply.status == 413
        assert reply.error["code"] == "request_too_large"
        assert reply.headers["connection"] == "close"
        assert sent < 20 * MOST
    wait_for(lambda: server.server.guards._bodies.held == before)


def test_the_largest_body_comes_in_one_piece(server: Running) -> None:
    body = b"1" * MOST
    assert server.ask("POST", "/size", JSON, body).json["bytes"] == MOST
    chunks = b"".join(b"10000\r\n" + body[:65536] + b"\r\n" for _ in range(MOST // 65536)) + b"0\r\nX-T: 1\r\n\r\n"
    assert server.raw(request("POST", "/size", {**JSON, "Transfer-Encoding": "chunked"}) + chunks).json["bytes"] == MOST


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 200),
        ({"Transfer-Encoding": "chunked"}, 400),
        ({"Content-Length": "-1"}, 400),
        ({"Content-Length": "2, 2"}, 400),
        ({"Content-Length": "9" * 30}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_how_a_body_is_announced(server: Running, headers: dict[str, str | None], status: int) -> None:
    sent = {name: value for name, value in {**JSON, "Content-Length": "2", **headers}.items() if value is not None}
    reply = server.raw(request("POST", "/size", sent) + b"{}")
    assert reply.status == status
    if status != 200:
        assert reply.error["type"] == "invalid_request_error"


def test_a_body_in_another_transfer_encoding(server: Running) -> None:
    head = request("POST", "/size", {**JSON, "Transfer-Encoding": "gzip, chunked"})
    assert server.raw(head + b"2\r\n{}\r\n0\r\n\r\n").status == 415


@pytest.mark.parametrize("size", [10_000, 300_000, 3_000_000])
def test_large_headers(server: Running, size: int) -> None:
    reply = server.ask("GET", "/x", {"X-Large": "x" * size})
    assert reply.status in (431, 0)  # a client that sends megabytes may be cut off before it reads
    if reply.status:
        assert reply.error["code"] == "headers_too_large"
    assert reply.status or size > 1_000_000
    assert server.ask("GET", "/x", {"X-Large": "x" * 4000}).status == 200
    assert server.ask("GET", "/" + "x" * size).status in (431, 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad\x00Name: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c: d\r\n\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\n1\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_request(server: Running, sent: bytes) -> None:
    before = server.logged()
    reply = server.raw(sent)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert reply.headers["connection"] == "close"
    [line] = wait_for(lambda: server.log.lines[before:])
    assert "\x1b" not in line
    assert json.loads(line)["status"] == 400


def test_a_request_for_another_protocol_is_answered_as_it_is(server: Running) -> None:
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    assert server.ask("GET", "/x", upgrade).status == 200
    assert server.ask("POST", "/size", {**JSON, **upgrade}, b"{}").status == 400
    socket_upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "a",
        "Sec-WebSocket-Version": "13",
    }
    assert server.ask("GET", "/x", socket_upgrade).status == 200


def test_pipelined_requests_do_no_harm(server: Running) -> None:
    first = request("POST", "/size", JSON, b"{}")
    for further in (request("GET", "/x") * 1000, b"\x00\x01 rubbish\r\n\r\n", request("POST", "/wait", JSON, b"{}")):
        with server.connect() as connection:
            send_all(connection, first + further)
            assert read_reply(connection).json["bytes"] == 2
            assert is_closed(connection)
    with server.connect() as connection:  # it is noticed that this client leaves, though more came behind its request
        connection.sendall(request("POST", "/wait", JSON, b"{}") + request("GET", "/x"))
        app: PlainApp = server.server.guards._app  # type: ignore[assignment]
        wait_for(lambda: app.waiting)
    wait_for(lambda: not app.waiting)


def test_a_connection_is_kept_for_further_requests(server: Running) -> None:
    with server.connect() as connection:
        for size in (2, 70_000, 3):
            connection.sendall(request("POST", "/size", JSON, b"1" * size))
            assert read_reply(connection).json["bytes"] == size


def test_a_body_is_asked_for(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(request("POST", "/size", {**JSON, "Expect": "100-continue", "Content-Length": "2"}))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert read_reply(connection).json["bytes"] == 2
    refused = server.ask("POST", "/size", {**JSON, "Expect": "100-continue", "Content-Length": str(MOST + 1)})
    assert refused.status == 413  # and was not asked for


def test_who_reads_nothing_is_cut_and_delays_nobody(server: Running) -> None:
    sent = request("POST", "/stream", JSON, json.dumps({"events": 2000, "bytes": 20_000}).encode())
    deaf = [server.connect(receive_buffer=4096) for _ in range(4)]
    for connection in deaf:
        connection.sendall(sent)
    slowest = 0.0
    wait_for(lambda: server.connections >= 4)
    started = time.monotonic()
    while server.connections >= 4:
        before = time.monotonic()
        assert server.ask("POST", "/stream", JSON, b'{"events": 3, "bytes": 10}').status == 200
        slowest = max(slowest, time.monotonic() - before)
        assert time.monotonic() - started < 30
    assert time.monotonic() - started > SECONDS * 0.5
    assert slowest < SECONDS
    for connection in deaf:
        connection.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system cannot be told so")
def test_who_reads_nothing_of_a_short_reply_is_cut_by_the_system() -> None:
    with running(PlainApp(), reader_seconds=SECONDS, keep_alive_seconds=100.0) as server:
        connection = server.connect(receive_buffer=4096)
        connection.sendall(request("POST", "/stream", JSON, b'{"events": 1000, "bytes": 300}'))
        wait_for(lambda: server.connections)
        wait_for(lambda: not server.connections)  # though all of it was handed to the system long before
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: connection.recv(65536), b""))
        connection.close()


def test_who_reads_slowly_is_served(server: Running) -> None:
    with server.connect(receive_buffer=4096) as connection:
        connection.sendall(request("POST", "/stream", JSON, json.dumps({"events": 40, "bytes": 100_000}).encode()))
        got, started = 0, time.monotonic()
        while more := connection.recv(65536):
            got += len(more)
            if time.monotonic() - started < 2 * SECONDS:
                time.sleep(0.05)
            if got > 4_000_000:
                break
    assert got > 4_000_000
    assert time.monotonic() - started > SECONDS


def test_too_many_connections() -> None:
    with running(PlainApp(), max_connections=10) as server:
        held = [server.connect() for _ in range(10)]
        wait_for(lambda: server.connections == 10)
        refused = server.ask("GET", "/x")
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        for connection in held:
            connection.close()
        wait_for(lambda: server.connections == 0)
        assert server.ask("GET", "/x").status == 200


def test_a_client_that_leaves_while_it_sends(server: Running) -> None:
    before = server.logged()
    with server.connect() as connection:
        connection.sendall(request("POST", "/size", {**JSON, "Content-Length": "100000"}) + b"1" * 1000)
        connection.shutdown(socket.SHUT_WR)
        assert is_closed(connection)
    wait_for(lambda: len(server.log.lines) > before)
    assert json.loads(server.log.lines[-1])["status"] == 499


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_old_client_gets_a_stream_without_chunks(server: Running, version: str) -> None:
    """As proxies are that speak HTTP/1.0: the reply ends with the connection."""
    for path, expected in (("/stream", b"x" * 30), ("/size", b'{"bytes": 26, "path": "/size"}')):
        content = json.dumps({"events": 3, "bytes": 10}).encode()
        assert len(content) == 26
        sent = request("POST", path, {**JSON, "Connection": "close"}, content)
        with server.connect() as connection:
            send_all(connection, sent.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1))
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        is_chunked = b"transfer-encoding: chunked" in head
        assert is_chunked == (version == "1.1" and path == "/stream")
        assert (body == expected) != is_chunked
