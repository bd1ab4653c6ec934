"""The shipped model, served from a thread of this process, and what tests ask it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from running import running

import flashsloth
from flashsloth.serving.app import create_app
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.service import Service
from flashsloth.serving.structured_output import JsonMask

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60.0
MODEL = "nano"
EVENT, DATA, DONE = "event: ", "data: ", "[DONE]"


@cache
def nano() -> flashsloth.FlashSloth:
    """One for all tests of a process."""
    return flashsloth.load()


def data_url(name: str) -> str:
    """A picture of `examples/`, as clients send it."""
    return "data:image/png;base64," + base64.b64encode((EXAMPLES / name).read_bytes()).decode()


@contextmanager
def serving(**limits: Any) -> Iterator[str]:
    """The address of a server with all that stands around the application, until the block ends."""
    config = ServeConfig(port=0, **limits)
    with running(create_app(Service(nano(), config)), **limits) as server:
        yield f"http://127.0.0.1:{server.port}"


DEADLINE = 1.5
"""Seconds in which a slow answer of :func:`slowly` has begun and has not ended."""
LONG = {"type": "json_schema", "name": "long", "schema": {"type": "string", "minLength": 500}}
LONG_CHAT = {"type": "json_schema", "json_schema": {"name": "long", "schema": LONG["schema"]}}
"""The form of an answer that is masked, and so can be slowed down; of responses, and of chat."""


@contextmanager
def slowly() -> Iterator[None]:
    """A block in which each token of an answer of a form takes at least a while."""
    quick = JsonMask.__call__

    def slow(mask: JsonMask, tokens: Sequence[int]) -> torch.Tensor:
        time.sleep(0.05)
        return quick(mask, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonMask, "__call__", slow)
        yield


@cache
def npm_packages() -> str | None:
    """Where npm has the client; None without npm or without the client, which CI must have."""
    if shutil.which("npm") is not None and shutil.which("node") is not None:
        root = subprocess.run(["npm", "root", "--global"], capture_output=True, text=True, check=True).stdout.strip()
        if (Path(root) / "openai").is_dir():
            return root
    assert not os.environ.get("CI"), "npm's package openai is not here: .ci/install_programs installs it"
    return None


def post(url: str, body: Any) -> httpx2.Response:
    """A reply, whole; streams too."""
    return httpx2.post(url, json=body, timeout=PATIENCE)


def refusal(reply: httpx2.Response) -> tuple[int, str | None]:
    """Status and parameter of a refusal."""
    assert reply.status_code >= 400, reply.text[:200]
    return reply.status_code, reply.json()["error"]["param"]


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream, without the mark of its end; an event's name is its type."""
    found = []
    for block in text.split("\n\n"):
        name = None
        for line in block.splitlines():
            if line.startswith(EVENT):
                name = line.removeprefix(EVENT)
            elif line.startswith(DATA) and line != DATA + DONE:
                found.append(json.loads(line.removeprefix(DATA)))
                assert name in (None, found[-1].get("type"))
    return found
