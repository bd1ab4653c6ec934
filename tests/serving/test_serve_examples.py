"""The examples of `examples/serve` do what they say, as a reader runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from served import EXAMPLES, PATIENCE, nano, npm_packages, serving

FOLDER = EXAMPLES / "serve"
COUNTING, QUESTION = EXAMPLES / "counting.png", "How many hexagons are there?"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as address:
        yield address


def run(url: str, *command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        env={**os.environ, "FLASHSLOTH_URL": url, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python(url: str) -> None:
    streamed, parsed, looked = run(url, sys.executable, str(FOLDER / "ask.py")).splitlines()
    assert (streamed, parsed) == ("red", "color='red'")
    assert "where it looked" in looked
    other = run(url, sys.executable, str(FOLDER / "ask.py"), str(COUNTING), QUESTION)
    assert other.splitlines()[0] == nano().answer(COUNTING, QUESTION)


def test_javascript(url: str) -> None:
    root = npm_packages()
    if root is None:
        pytest.skip("npm's package openai is not here: npm install --global openai")
    found = run(url, "node", str(FOLDER / "ask.mjs"), str(COUNTING), QUESTION, NODE_PATH=root)
    assert found.splitlines() == [nano().answer(COUNTING, QUESTION)] * 2


def test_curl(url: str) -> None:
    if shutil.which("curl") is None:
        assert not os.environ.get("CI"), "curl is not here: .ci/install_programs installs it"
        pytest.skip("curl is not here")
    *events, last = run(url, str(FOLDER / "ask.sh")).strip().splitlines()
    assert "data: [DONE]" in events
    assert json.loads(last)["answers"]["color"]["choice"] == "red"
