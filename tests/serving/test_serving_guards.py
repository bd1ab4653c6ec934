"""Who may ask what, against a real server: S7, S9, the request's life, and what is logged of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from running import JSON, PlainApp, Reply, Running, read_reply, request, running, wait_for

KEYS = ("first-key", "zweiter-schlüssel")
ORIGIN = "https://friend.example"
PAGE = ("/", "/page.js")


@pytest.fixture(scope="module")
def app() -> PlainApp:
    return PlainApp()


@pytest.fixture(scope="module")
def server(app: PlainApp) -> Iterator[Running]:
    """As it is by default."""
    with running(app, page=PAGE) as one:
        yield one


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    """With keys, a name and a friend."""
    with running(PlainApp(), page=PAGE, api_keys=KEYS, allow_hosts=("models.example",), allow_origins=(ORIGIN,)) as one:
        yield one


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/v1/models", "/size", "/metrics", "/openapi.json", "/nothing", "/health/live/x"])
def test_nothing_without_a_key(locked: Running, method: str, path: str) -> None:
    for headers in ({}, bearer("wrong"), {"Authorization": KEYS[0]}, bearer(""), {"Authorization": f"Basic {KEYS[0]}"}):
        reply = locked.ask(method, path, {**JSON, **headers})
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert method == "HEAD" or reply.error["type"] == "authentication_error"
    assert locked.ask(method, f"{path}?api_key={KEYS[0]}&key={KEYS[0]}&authorization=Bearer%20{KEYS[0]}").status == 401
    twice = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n" + f"Authorization: Bearer {KEYS[0]}\r\n" * 2 + "\r\n"
    assert locked.raw(twice.encode()).status == 401


def test_each_key_opens(locked: Running) -> None:
    sent = f"Bearer {KEYS[1]}".encode().decode("latin-1")
    for headers in (bearer(KEYS[0]), {"Authorization": f"bearer  {KEYS[0]} "}, {"Authorization": sent}):
        assert locked.ask("POST", "/size", {**JSON, **headers}, b"{}").status == 200


def test_all_keys_are_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from flashsloth.serving import api_keys

    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(api_keys.hmac, "compare_digest", compare)
    keys = api_keys.ApiKeys(("a", "b", "c"))
    for key, opens in (("a", True), ("c", True), ("x" * 10_000, False)):
        compared.clear()
        assert keys.open_to([(b"authorization", f"Bearer {key}".encode())]) == opens
        assert compared == [(32, 32)] * 3


def test_health_and_the_page_need_no_key(locked: Running) -> None:
    for path in ("/health/live", "/health/ready", *PAGE):
        assert locked.ask("GET", path).status == 200
    assert locked.ask("POST", "/", JSON, b"{}").status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("models.example", 200),
        ("Models.Example:443", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("models.example.evil.example", 421),
        ("evil@localhost:1", 200),
        ("localhost@evil.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_hosts(locked: Running, host: str, status: int) -> None:
    reply = locked.ask("POST", "/size", {**JSON, **bearer(KEYS[0]), "Host": host}, b"{}")
    assert reply.status == status
    if status == 421:
        assert reply.error["code"] == "host_not_allowed"
    assert locked.ask("GET", "/health/live", {"Host": host}).status == 200
    assert locked.ask("GET", "/metrics", {"Host": host, **bearer(KEYS[0])}).status == 200
    assert locked.ask("GET", "/metrics", {"Host": host}).status == 401


def test_no_host_or_several(server: Running) -> None:
    assert server.raw(b"GET /x HTTP/1.1\r\n\r\n").status == 400
    assert server.raw(b"GET /x HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n").status == 400


def has_cors(reply: Reply) -> bool:
    return any(name.startswith("access-control") for name in reply.headers)


def test_no_other_site_by_default(server: Running, app: PlainApp) -> None:
    own = {"Origin": f"http://localhost:{server.port}", "Host": f"localhost:{server.port}"}
    same = server.post("/size", {}, own)
    assert same.status == 200
    assert not has_cors(same)
    for origin in (ORIGIN, "null", "http://localhost:1", "http://evil.example", "https://localhost.evil.example"):
        other = {**own, "Origin": origin}
        refused = [
            server.post("/size", {}, other),
            server.ask("GET", "/x", other),
            server.ask("OPTIONS", "/size", {**other, "Access-Control-Request-Method": "POST"}),
        ]
        assert [one.status for one in refused] == [403] * 3
        assert not any(map(has_cors, refused))
        assert refused[0].error["type"] == "permission_error"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
def test_what_a_browser_sends_without_asking(server: Running, kind: str | None) -> None:
    headers = {"Origin": ORIGIN, **({"Content-Type": kind} if kind else {})}
    with server.connect() as connection:  # the reply comes before the body
        connection.sendall(request("POST", "/size", {**headers, "Content-Length": "1000"}))
        reply = read_reply(connection)
    assert reply.status == 415
    assert reply.error["code"] == "unsupported_media_type"
    assert not has_cors(reply)


def test_a_friend_s_page(locked: Running) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    asked = locked.ask("OPTIONS", "/v1/chat/completions", headers)
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert asked.headers["access-control-allow-headers"] == "authorization, *"
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert asked.headers["vary"] == "Origin"
    for key, status in ((KEYS[0], 200), ("wrong", 401)):  # it may read why it was refused
        reply = locked.post("/size", {}, {"Origin": ORIGIN, **bearer(key)})
        assert reply.status == status
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in reply.headers
    assert not has_cors(locked.post("/size", {}, {"Origin": "https://other.example", **bearer(KEYS[0])}))
    assert not has_cors(locked.post("/size", {}, bearer(KEYS[0])))


def test_every_reply_tells_browsers_what_not_to_do(server: Running) -> None:
    for reply in (server.post("/size", {}), server.ask("GET", "/", {}), server.ask("POST", "/size"), server.raw(b"\0")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["content-security-policy"].startswith("default-src 'none';")
        assert "server" not in reply.headers
    assert "script-src 'self';" in server.ask("GET", "/").headers["content-security-policy"]
    assert "script-src" not in server.ask("GET", "/x").headers["content-security-policy"]


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("my-request.1", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("<script>", False), ("ä", False)],
)
def test_request_ids(server: Running, given: str, is_kept: bool) -> None:
    reply = server.ask("GET", "/x", {"X-Request-Id": given})
    found = reply.headers["x-request-id"]
    assert (found == given) == is_kept
    assert is_kept or found.startswith("req_")
    [line] = wait_for(lambda: server.log.of(found))
    assert line["status"] == 200


def test_headers_of_a_reply_hold_no_control_characters(server: Running) -> None:
    said = server.post("/says", {"headers": [["x-said", "a\r\nSet-Cookie: b\x1b[31m\x00\xff"]]})
    assert said.headers["x-said"] == "a??Set-Cookie: b?[31m??"
    assert "set-cookie" not in said.headers


@pytest.mark.parametrize("starts", [False, True])
def test_who_leaves_ends_their_request(server: Running, app: PlainApp, starts: bool) -> None:
    before = app.left
    with server.connect() as connection:
        sent = {"X-Request-Id": f"leaves-{starts}", **JSON}
        connection.sendall(request("POST", "/wait", sent, json.dumps({"starts": starts}).encode()))
        wait_for(lambda: app.waiting)
    wait_for(lambda: app.left == before + 1)
    [line] = wait_for(lambda: server.log.of(f"leaves-{starts}"))
    assert line["status"] == (200 if starts else 499)
    assert line["left"] is True


def test_a_fault_of_ours(server: Running) -> None:
    reply = server.post("/fail", {}, {"X-Request-Id": "fails"})
    assert reply.status == 500
    assert reply.error["type"] == "server_error"
    [line] = wait_for(lambda: server.log.of("fails"))
    assert line["error"].startswith("RuntimeError")
    assert "running.py:" in line["error"]
    assert "secret" not in json.dumps(line)
    streamed = server.post("/fail", {"starts": True})
    assert streamed.status == 200
    *_, event, end = streamed.body.split(b"\n\n")
    assert end == b""
    assert json.loads(event.removeprefix(b"data: "))["error"]["type"] == "server_error"


def test_ending_requests_tells_their_clients(server: Running, app: PlainApp) -> None:
    from flashsloth.serving.api_error import unavailable

    with server.connect() as waiting, server.connect() as streaming, server.connect() as sending:
        waiting.sendall(request("POST", "/wait", JSON, b"{}"))
        streaming.sendall(request("POST", "/wait", JSON, b'{"starts": true}'))
        sending.sendall(request("POST", "/size", {**JSON, "Content-Length": "9"}))
        guards = server.server.guards
        wait_for(lambda: app.waiting == 2 and len(guards._exchanges) == 3)
        loop: Any = server.server._loop
        loop.call_soon_threadsafe(guards.end, unavailable("the end", 1))
        for connection in (waiting, sending):
            reply = read_reply(connection)
            assert reply.status == 503
            assert reply.error["message"] == "the end"
        wait_for(lambda: not app.waiting)
        assert b'data: {"error": {"message": "the end"' in read_reply(streaming).body
