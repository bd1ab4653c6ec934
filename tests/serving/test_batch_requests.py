"""OpenAI's lines, answered as the server answers them."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import EXAMPLES, PATIENCE, data_url, nano, serving

from flashsloth.cli.app import main
from flashsloth.evaluation.answerer import FlashSlothAnswerer, load_flashsloth
from flashsloth.serving import batch_requests
from flashsloth.serving.batch import BatchOutcome, read_asked, run_batch
from flashsloth.serving.batch_lines import BatchSource
from flashsloth.serving.batch_output import BatchOutput
from flashsloth.serving.batch_requests import RequestAnswerer
from flashsloth.serving.config import ServeConfig

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


@pytest.fixture(scope="module")
def model() -> FlashSlothAnswerer:
    return load_flashsloth(None)


def chat(question: str, *pictures: str, **more: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    content = [*parts, {"type": "text", "text": question}]
    return {"model": "nano", "messages": [{"role": "user", "content": content}], **more}


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "circle": (CHAT, chat("What color is the circle?", data_url("shapes.png"))),
    "words": (CHAT, chat("Say hello.", max_tokens=4, logprobs=True, top_logprobs=2)),
    "two": (CHAT, chat("How many?", data_url("counting.png"), data_url("shapes.png"), max_completion_tokens=3)),
    "many": (CHAT, chat("What is it?", data_url("word.png"), n=40, temperature=1.0, seed=3, max_tokens=2)),
    "response": (RESPONSES, {"model": "nano", "input": "Say hello.", "max_output_tokens": 4}),
    "file": (CHAT, chat("What?", "shapes.png")),
    "path": (CHAT, chat("What?", "file:///etc/passwd")),
    "http": (CHAT, chat("What?", "http://127.0.0.1:1/x.png")),
    "no picture": (CHAT, chat("What?", "data:image/png;base64,aGFsbG8=")),
    "long": (CHAT, chat("word " * 100_000)),
    "other model": (CHAT, {**chat("What?"), "model": "gpt"}),
    "tools": (CHAT, chat("What?", tools=[{"type": "function"}])),
    "nowhere": ("/v1/nowhere", chat("What?")),
    "no number": (CHAT, chat("What?", temperature=float("nan"))),
    "half": (CHAT, chat("a\ud800b")),
}
GOOD = ("circle", "words", "two", "many", "response")


def write(path: Path, bodies: dict[str, tuple[str, dict[str, Any]]]) -> Path:
    lines = [{"custom_id": name, "method": "POST", "url": url, "body": body} for name, (url, body) in bodies.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def run(model: FlashSlothAnswerer, source: Path, out: Path, *hosts: str) -> BatchOutcome:
    asked = BatchSource(source)
    counted = read_asked(asked)
    with BatchOutput(out) as output:
        return run_batch(asked, counted, output, RequestAnswerer(model, ServeConfig(allow_media_hosts=hosts)))


def read(path: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["custom_id"]: row for row in rows}


def same(body: dict[str, Any]) -> dict[str, Any]:
    """What does not differ from one time to the next."""
    plain = {name: value for name, value in body.items() if name not in ("id", "created", "created_at", "completed_at")}
    if "output" in plain:
        plain["output"] = [{**one, "id": None} for one in plain["output"]]
    return plain


def test_each_reply_is_the_servers(tmp_path: Path, model: FlashSlothAnswerer) -> None:
    outcome = run(model, write(tmp_path / "in.jsonl", BODIES), tmp_path / "out.jsonl")
    assert outcome == BatchOutcome(len(BODIES), answered=len(GOOD), failed=len(BODIES) - len(GOOD))
    found = read(tmp_path / "out.jsonl")
    assert {*found} == {*BODIES}
    with serving() as url:
        for name, (path, body) in BODIES.items():
            row = found[name]
            assert row["error"] is None
            assert {*row["response"]} == {"status_code", "request_id", "body"}
            headers = {"Content-Type": "application/json"}
            reply = httpx2.post(url + path, content=json.dumps(body).encode(), headers=headers, timeout=PATIENCE)
            assert row["response"]["status_code"] == reply.status_code, name
            assert (reply.status_code == 200) == (name in GOOD), reply.text
            assert same(row["response"]["body"]) == same(reply.json())


def test_pictures_come_from_hosts_that_are_named_alone(tmp_path: Path, model: FlashSlothAnswerer) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=EXAMPLES)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        urls = {"named": f"http://{host}/shapes.png", "other": f"http://localhost:{server.server_port}/shapes.png"}
        bodies = {name: (CHAT, chat("What color is the circle?", url)) for name, url in urls.items()}
        run(model, write(tmp_path / "in.jsonl", bodies), tmp_path / "out.jsonl", host)
        server.shutdown()
    found = read(tmp_path / "out.jsonl")
    assert found["other"]["response"]["status_code"] == 400
    message = found["named"]["response"]["body"]["choices"][0]["message"]
    assert message["content"] == model.sloth.answer(EXAMPLES / "shapes.png", "What color is the circle?")


def test_a_reply_that_streams_and_a_body_that_is_too_large(tmp_path: Path, model: FlashSlothAnswerer) -> None:
    large = {"large": (CHAT, chat("x" * ServeConfig.max_body_bytes)), "stream": (CHAT, chat("What?", stream=True))}
    run(model, write(tmp_path / "in.jsonl", large), tmp_path / "out.jsonl")
    found = read(tmp_path / "out.jsonl")
    assert found["large"]["response"]["status_code"] == 413
    assert found["stream"]["response"]["body"]["error"]["param"] == "stream"


def test_only_what_is_missing_is_asked(tmp_path: Path, model: FlashSlothAnswerer) -> None:
    bodies = {f"{number}": (CHAT, chat(f"Say {number}.", max_tokens=3)) for number in range(100)}
    source, out = write(tmp_path / "in.jsonl", bodies), tmp_path / "out.jsonl"
    assert run(model, source, out).answered == 100
    whole = read(out)
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:60]))
    bodies["70"] = (CHAT, chat("Say something else.", max_tokens=3))
    outcome = run(model, write(source, bodies), out)
    assert outcome.lines == 100
    assert outcome.already + outcome.answered == 100
    assert outcome.already in (59, 60)
    again = read(out)
    assert {*again} == {*whole}
    for name in {*whole} - {"70"}:
        assert same(again[name]["response"]["body"]) == same(whole[name]["response"]["body"])


def test_a_fault_of_ours_is_a_line_that_failed(
    tmp_path: Path, model: FlashSlothAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr("flashsloth.serving.app.read_responses", broken)
    bodies = {name: BODIES[name] for name in ("circle", "response")}
    assert run(model, write(tmp_path / "in.jsonl", bodies), tmp_path / "out.jsonl").failed == 1
    found = read(tmp_path / "out.jsonl")
    assert found["response"]["response"]["status_code"] == 500
    assert found["circle"]["response"]["status_code"] == 200


def test_bodies_under_way_are_bounded(
    tmp_path: Path, model: FlashSlothAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_requests, "MOST_BYTES", 1)  # one at a time
    running: list[int] = []
    submit = nano().engine_thread.__class__.submit

    def counted(self: Any, *given: Any) -> Any:
        running.append(self.engine.has_work)
        return submit(self, *given)

    bodies = {f"{number}": (CHAT, chat(f"Say {number}.", max_tokens=3)) for number in range(8)}
    source = write(tmp_path / "in.jsonl", bodies)
    monkeypatch.setattr(nano().engine_thread.__class__, "submit", counted)
    assert run(model, source, tmp_path / "out.jsonl").answered == 8
    assert not any(running)


def test_as_it_is_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bodies = {name: (url, {**body, "model": "mine"}) for name, (url, body) in BODIES.items() if name in GOOD}
    source, out = write(tmp_path / "in.jsonl", bodies), tmp_path / "out.jsonl"
    assert main(["batch", str(source), str(out), "--served-model-name", "mine"]) == 0
    assert capsys.readouterr().out == f"5 of 5 lines are answered in {out}\n"
    assert main(["batch", str(source), str(out)]) == 2
    assert "was answered by another model, or with other options" in capsys.readouterr().err
    assert read(out)["circle"]["response"]["body"]["model"] == "mine"
