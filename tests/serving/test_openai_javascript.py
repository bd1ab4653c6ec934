"""OpenAI's own JavaScript client asks the shipped model, and gets what the Python client gets."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from running import wait_for
from served import EXAMPLES, MODEL, PATIENCE, nano, npm_packages, serving

SCRIPT = Path(__file__).with_name("openai_client.cjs")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the client got; the engine has nothing to do afterwards, though two streams were left."""
    root = npm_packages()
    if root is None:
        pytest.skip("npm's package openai is not here: npm install --global openai")
    with serving() as url:
        command = ["node", str(SCRIPT), f"{url}/v1", str(EXAMPLES / "shapes.png"), MODEL]
        environment = {**os.environ, "NODE_PATH": root}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=2 * PATIENCE)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: not nano().engine.has_work)
    got: dict[str, Any] = json.loads(done.stdout)
    return got


def test_answers(found: dict[str, Any]) -> None:
    assert found["models"] == [MODEL]
    answer = nano().answer(EXAMPLES / "shapes.png", "What color is the circle?")
    assert found["chat"]["choices"][0]["message"]["content"] == answer
    assert found["response"]["output_text"] == answer
    assert json.loads(found["form"]["choices"][0]["message"]["content"])["color"] in ("red", "blue")


def test_several_answers_with_log_probabilities(found: dict[str, Any]) -> None:
    for choice in found["drawn"]["choices"]:
        tokens = choice["logprobs"]["content"]
        assert "".join(one["token"] for one in tokens) == choice["message"]["content"]
        assert all(len(one["top_logprobs"]) == 2 for one in tokens)


def test_streams(found: dict[str, Any]) -> None:
    *chunks, usage = found["chunks"]
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
    assert text == found["long"]["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["usage"] == found["long"]["usage"]
    deltas = [event["delta"] for event in found["events"] if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == found["response"]["output_text"]
    assert found["events"][-1]["type"] == "response.completed"


def test_mistakes(found: dict[str, Any]) -> None:
    expected = {
        "mistake": ("BadRequestError", 400, "temperature"),
        "tools": ("BadRequestError", 400, "tools"),
        "other": ("NotFoundError", 404, "model"),
    }
    for name, refused in expected.items():
        assert tuple(found[name][one] for one in ("kind", "status", "param")) == refused


def test_streams_that_are_left(found: dict[str, Any]) -> None:
    assert (found["left"], found["aborted"] >= 3) == (3, True)
