"""What strangers try on the whole application: S4 (injection), S5 (paths), S7 (keys), S9 (browsers)."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from running import JSON, Reply, Running, running, wait_for
from served import data_url, nano

import flashsloth.serving as serving_package
from flashsloth.serving.app import create_app
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.service import Service

KEY = "a-key-that-opens"
OPEN = ("/health/live", "/health/ready")
CHAT = "/v1/chat/completions"
EVIL = "\r\nX-Evil: 1\r\n\r\n\x1b[31m\x00\u2028end"
MARK = "unmistakable-words-of-a-client"
numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(create_app(Service(nano(), ServeConfig()))) as one:
        yield one


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    config = ServeConfig(api_keys=(KEY,))
    with running(create_app(Service(nano(), config)), api_keys=config.api_keys) as one:
        yield one


def routes(server: Running) -> Iterator[tuple[str, str]]:
    """Every method and path of the application; what stands for a part of a path is filled in."""
    app: Any = server.server.guards._app
    for route in app.routes:
        for method in sorted(route.methods):
            yield method, route.path.replace("{model:path}", "nano").replace("{response_id}", "resp_1")


def test_every_route_needs_a_key(locked: Running) -> None:
    page = locked.server.guards._page
    tried = 0
    for method, path in routes(locked):
        is_open = path in OPEN or path in page
        body = b"{}" if method == "POST" else b""
        for headers, query in (({}, ""), ({"Authorization": "Bearer wrong"}, ""), ({}, f"?api_key={KEY}&token={KEY}")):
            reply = locked.ask(method, path + query, {**JSON, **headers}, body)
            assert (reply.status == 401) != is_open, (method, path)
            tried += not is_open
        known = locked.ask(method, path, {**JSON, "Authorization": f"Bearer {KEY}"}, body)
        assert known.status not in (0, 401, 415, 500)
    assert tried >= 3 * 10
    assert "/page.js" in page
    assert not any(KEY in line for line in locked.log.lines)


def test_browsers(server: Running) -> None:
    posts = [path for method, path in routes(server) if method == "POST"]
    assert CHAT in posts
    for path in posts:
        stranger = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        reply = server.ask("POST", path, stranger, b'{"model": "nano", "messages": []}')
        assert reply.status == 415
        plain = server.ask("POST", path, {"Content-Type": "text/plain"}, b"{}")
        assert plain.status == 415
        assert not [name for one in (reply, plain) for name in one.headers if name.startswith("access-control")]
    for method, path in routes(server):
        assert not any(name.startswith("access-control") for name in server.ask(method, path, JSON).headers)


def chat(**fields: Any) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": data_url("shapes.png")}}
    content = [picture, {"type": "text", "text": f"{MARK}?"}]
    return {"model": "nano", "messages": [{"role": "user", "content": content}], "max_tokens": 3, **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": True},
        {"model": EVIL},
        {"model": MARK * 40_000},
        {"stop": [EVIL]},
        {"stop": "x" * (1 << 20)},
        {"user": EVIL, "metadata": {EVIL: EVIL}, "service_tier": EVIL},
        {EVIL: 1},
        {"messages": [{"role": EVIL, "content": EVIL}]},
        {"messages": [{"role": "user", "content": [{"type": EVIL}]}]},
        {"messages": [{"role": "user", "content": "a", "name": EVIL, EVIL: EVIL}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": EVIL + MARK}}]}]},
        {"messages": [{"role": "user", "content": MARK * 40_000}]},
        {"response_format": {"type": EVIL}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": EVIL, "schema": {"pattern": MARK}}}},
        {"tools": [{"type": "function", "function": {"name": EVIL}}]},
        {"logit_bias": {EVIL: 1}},
        {"flashsloth": {"resolution": EVIL}},
    ],
    ids=lambda fields: ",".join(map(repr, fields))[:40],
)
def test_what_a_client_writes_stays_out_of_headers_and_logs(server: Running, fields: dict[str, Any]) -> None:
    own_id = f"injected-{next(numbers)}"
    before = server.logged()
    reply = server.post(CHAT, chat(**fields), {"X-Request-Id": own_id})
    assert reply.status in (200, 400, 404)
    check_harmless(reply)
    wait_for(lambda: server.log.of(own_id))
    [line] = server.log.lines[before:]
    assert json.loads(line)["status"] == reply.status
    assert line.isascii()
    assert line.isprintable()
    assert not [word for word in (MARK, "X-Evil", "base64") if word in line]
    assert len(line) < 1000


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "a" * 15_000_000}]}, "messages"),
        (
            CHAT,
            {"messages": [{"role": "system", "content": "a" * 15_000_000}, {"role": "user", "content": "a"}]},
            "messages",
        ),
        ("/v1/responses", {"input": "a" * 15_000_000}, "input"),
        ("/tokenize", {"prompt": "a" * 15_000_000}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user", "content": "a" * 15_000_000}]}, "messages"),
    ],
)
def test_no_text_is_tokenized_that_cannot_fit(server: Running, path: str, body: dict[str, Any], param: str) -> None:
    before = time.process_time()
    reply = server.post(path, {"model": "nano", **body})
    assert reply.status == 400
    assert reply.error["param"] == param
    assert time.process_time() - before < 10  # where tokenizing takes a hundred


def check_harmless(reply: Reply) -> None:
    assert "x-evil" not in reply.headers
    for name, value in reply.headers.items():
        assert value.isprintable()
        assert MARK not in value
        assert len(name) + len(value) < 4000


@pytest.mark.parametrize("given", ["a\x1b[31mb", "x" * (60 << 10), "\x80\xff", "a\tb", MARK + " "])
def test_ids_of_a_client(server: Running, given: str) -> None:
    reply = server.post(CHAT, chat(), {"X-Request-Id": given})
    assert reply.status in (200, 400)
    check_harmless(reply) if given.strip() != MARK else None
    assert reply.headers["x-request-id"].startswith("req_") or given.strip() == MARK


@pytest.mark.parametrize("model", ["\r\nX-Evil: 1", "\x00", "\x1b[31m", "..", "../../etc/passwd", "%2e%2e", "a" * 5000])
def test_names_in_paths(server: Running, model: str) -> None:
    reply = server.ask("GET", f"/v1/models/{quote(model, safe='')}")
    assert reply.status == 404
    check_harmless(reply)
    [line] = wait_for(lambda: server.log.of(reply.headers["x-request-id"]))
    assert line["route"] in (None, "/v1/models/{model}", "/v1/models/{model:path}")


SOURCE = Path(serving_package.__file__)
FILES = ("etc/passwd", "app.py", "config.json", "src/flashsloth/serving/app.py", str(SOURCE).lstrip("/"))
UPS = (
    "../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%5c",
    "..\\",
    "....//",
    "%252e%252e%252f",
    "..;/",
    ".%00./",
    "%c0%ae%c0%ae/",
)
STARTS = ("/", "//", "/page/", "/page.js/", "/v1/", "/v1/models/", "/static/", "/%00/", "/.")
FORMS = (
    [start + up * depth + file for start in STARTS for up in UPS for depth in (1, 6) for file in FILES]
    + [f"/{file}" for file in FILES]
    + [
        "file:///etc/passwd",
        "http://localhost/../../etc/passwd",
        "http://localhost/etc/passwd",
        "/page.js%00.html",
        "/page.js%00",
    ]
    + ["/page_files.py", "/__init__.py", "/page/index.html", "/.git/config", "/index.html/../../__init__.py", "*"]
)


def test_no_path_leads_to_a_file(server: Running) -> None:
    with open("/etc/passwd", "rb") as file:
        secrets = [file.readline().strip(), SOURCE.read_bytes()[:40], b"from __future__ import"]
    assert all(secrets)
    for form in FORMS:
        reply = server.ask("GET", form)
        assert reply.status in (400, 404), form
        assert reply.error["type"] == "invalid_request_error"
        assert not [one for one in secrets if one in reply.body], form


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "/etc/passwd", "examples/sun.png", "~/x.png", "file:///dev/zero", "C:\\x.png"]
)
def test_no_picture_is_a_path(server: Running, url: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    reply = server.post(CHAT, chat(messages=[{"role": "user", "content": content}]))
    assert reply.status == 400
    assert b"root:" not in reply.body
