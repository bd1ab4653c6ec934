"""A server with OpenAI's interface answers a benchmark: what it is sent, and what becomes of what it says."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from drawn_pope import draw_pope
from PIL import Image
from small_llava import save_llava
from stub_server import Response, closed_address, serving

from flashsloth.cli.app import main
from flashsloth.evaluation.chat_client import Patience
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.predictions import PREDICTIONS
from flashsloth.evaluation.runner import MOST_ALIKE, read_items, run
from flashsloth.evaluation.server_answerer import KEY_VARIABLE, ServerAnswerer, data_url
from flashsloth.evaluation.settings import settings_of
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import make_task
from flashsloth.media import open_picture

COUNT = 12
AT_ONCE = 3
POPE = settings_of("pope")
ONE_TRY = Patience(seconds=120, tries=1, first_wait=0.0)
START_SECONDS = 120.0


def says_yes(content: Any, _: int) -> Response:
    return Response(" Yes" if "circle" in json.dumps(content) else "no\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pope(tmp_path_factory.mktemp("pope"))


@pytest.fixture(scope="module")
def items(data: Path) -> list[Item]:
    return read_items(make_task("pope"), data, None, 0)


def test_a_question_is_sent_with_its_picture(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret")
    together = threading.Barrier(AT_ONCE, timeout=ONE_TRY.seconds)

    def says_yes_to_several(content: Any, number: int) -> Response:
        together.wait()
        return says_yes(content, number)

    with serving(says_yes_to_several) as stub:
        outcome = run(POPE, items, ServerAnswerer(stub.url, "m", AT_ONCE, ONE_TRY), tmp_path)
    assert outcome.merged
    assert [one.answer for one in outcome.answered] == [" Yes" if "circle" in one.id else "no\n" for one in items]
    assert {one.tokens for one in outcome.answered} == {3}
    assert stub.most_at_once == AT_ONCE
    assert {headers["Authorization"] for headers in stub.headers} == {"Bearer sk-secret"}
    assert b"secret" not in (tmp_path / PREDICTIONS).read_bytes()
    by_prompt = {(item.prompt, item.picture): item for item in items}
    seen = set()
    for body in stub.requests:
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", POPE.max_tokens, 0.0)
        assert "seed" not in body
        [message] = body["messages"]
        shown, asked = message["content"]
        kind, _, content = shown["image_url"]["url"].partition(",")
        assert (kind, asked["type"]) == ("data:image/png;base64", "text")
        pixels = Image.open(io.BytesIO(base64.b64decode(content))).tobytes()
        [item] = [
            item
            for (prompt, _), item in by_prompt.items()
            if prompt == asked["text"] and open_picture(item.pictures[0], image_policy="official").tobytes() == pixels  # type: ignore[arg-type]
        ]
        seen.add(item.id)
    assert len(seen) == COUNT


def test_pictures_are_converted_as_the_published_code_does(tmp_path: Path) -> None:
    clear = Image.effect_noise((9, 7), 200).convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    sent = base64.b64decode(data_url(tmp_path / "clear.png").partition(",")[2])
    assert Image.open(io.BytesIO(sent)).tobytes() == clear.convert("RGB").tobytes()


def test_pictures_stand_where_the_item_says(tmp_path: Path, items: list[Item]) -> None:
    one, other = items[0].pictures[0], items[1].pictures[0]
    placed = Item("i", "A <image 1> B <image 2>", (one, other), {}, "i", "i", ("A ", None, " B ", None))
    warm = settings_of("mmvet")
    with serving(says_yes) as stub:
        run(warm, [placed], ServerAnswerer(stub.url, "m", 1, ONE_TRY), tmp_path, seed=7)
    [body] = stub.requests
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url", "text", "image_url"]
    assert (body["temperature"], body["seed"]) == (warm.temperature, 7)


def test_what_the_server_refuses_is_an_item_that_failed(tmp_path: Path, items: list[Item]) -> None:
    def refuses_squares(content: Any, _: int) -> Response:
        return Response("yes", status=400, body=b"no squares") if "square" in json.dumps(content) else Response("yes")

    with serving(refuses_squares) as stub:
        outcome = run(POPE, items, ServerAnswerer(stub.url, "m", AT_ONCE, ONE_TRY), tmp_path)
        assert sorted(outcome.failures) == sorted(item.id for item in items if "square" in item.id)
        assert all("no squares" in str(error) for error in outcome.failures.values())
        assert len(outcome.answered) == COUNT - 4
        with pytest.raises(EvaluationError, match=r"model\.url is"):
            run(POPE, items, ServerAnswerer("http://127.0.0.1:1/v1", "m", AT_ONCE, ONE_TRY), tmp_path)


def test_a_server_that_is_gone_is_not_asked_for_ever(tmp_path: Path, items: list[Item]) -> None:
    first = items[0]
    many = [Item(f"{n}", "What?", first.pictures, first.truth, f"{n}", f"{n}") for n in range(3 * MOST_ALIKE)]
    outcome = run(POPE, many, ServerAnswerer(closed_address(), "m", AT_ONCE, ONE_TRY), tmp_path)
    assert outcome.gave_up
    assert len(outcome.failures) == MOST_ALIKE


def test_the_command(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(says_yes) as stub:
        options = ["--data", str(data), "--out", str(tmp_path / "out"), "--model", stub.url, "--name", "theirs"]
        assert main(["eval", "pope", *options, "--at-once", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "theirs"
    assert report["summary"]["figures"][0]["name"] == "accuracy"
    assert report["summary"]["figures"][0]["value"] == 100.0
    assert stub.most_at_once <= 2


@pytest.mark.slow
def test_transformers_serve(tmp_path: Path, data: Path, items: list[Item]) -> None:
    """A real server, in an environment of its own; its answers are those of the same model in this process."""
    from flashsloth.evaluation.transformers_answerer import TransformersAnswerer

    model = save_llava(tmp_path / "llava")
    environment = tmp_path / "environment"
    maker = Path(__file__).parents[1] / "second_environment.py"
    subprocess.run([sys.executable, maker, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "transformers[serving]"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        python,
        "-m",
        "transformers.cli.transformers",
        "serve",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    log = tmp_path / "log"
    with log.open("wb") as said:
        server = subprocess.Popen(
            list(map(str, command)), stdout=said, stderr=said, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/health", server, log)
        there = ServerAnswerer(f"http://127.0.0.1:{port}/v1", str(model), 2)
        short = settings_of("gqa")
        theirs = run(short, items, there, tmp_path / "served")
        here = run(short, items, TransformersAnswerer(str(model), dtype="float32"), tmp_path / "here")
    finally:
        server.terminate()
        server.wait()
    assert theirs.merged, (theirs.failures, log.read_text(encoding="utf-8"))
    assert here.merged, here.failures
    assert len({one.answer for one in here.answered}) > 1
    assert [one.answer for one in theirs.answered] == [one.answer for one in here.answered]


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8"))
