"""A batch on a real Ray of this machine: its answers are those of one process, and an actor that is killed loses none.

Slow, and not of `dev`: `pip install -c constraints.txt 'ray[serve,data]'` first. Takes a gigabyte and a minute.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny

from flashsloth.cli.app import main

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")

COUNT, PATIENCE = 400, 120.0
STORE_BYTES = 100 << 20
ACTOR = "ray::MapWorker"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=STORE_BYTES)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    for number in range(3):
        tiny.picture(number).save(folder / f"{number}.png")
    rows: list[Any] = [
        {"id": number, "picture": f"{number % 4}.png", "question": f"What is {number}?"} for number in range(COUNT)
    ]
    write(folder / "in.jsonl", [*rows, {"id": "bad"}])
    return folder / "in.jsonl"


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> dict[Any, Any]:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def without_paths(found: dict[Any, Any]) -> dict[Any, Any]:
    return {name: {**row, "error": row["error"] and row["error"]["code"]} for name, row in found.items()}


def batch(source: Path, out: Path, *more: str) -> int:
    return main(["batch", str(source), str(out), "--device", "cpu", "--max-tokens", "8", *more])


def actors() -> list[int]:
    return [
        process.info["pid"]
        for process in psutil.process_iter(["pid", "cmdline"])
        if any(ACTOR in text for text in process.info["cmdline"] or [])
    ]


def test_an_actor_that_is_killed_loses_nothing(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert batch(source, whole) == 1
    out.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:20]))  # begun by one process, ended by Ray
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not killed:
            if out.is_file() and out.read_bytes().count(b"\n") > COUNT // 3:
                for pid in actors()[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    monkeypatch.chdir(tmp_path)
    relative = Path(os.path.relpath(source, tmp_path))
    assert batch(relative, out, "--engine", "ray", "--actors", "2", "--actor-cpus", "0.5") == 1
    thread.join()
    assert killed
    assert without_paths(read(out)) == without_paths(read(whole))
    content = out.read_bytes()
    assert batch(source, out) == 1  # what failed is asked again, and the rest is known here too
    assert without_paths(read(out)) == without_paths(read(whole))
    assert content.count(b"\n") == COUNT + 1


def test_openais_lines(tmp_path: Path) -> None:
    def line(name: str, **more: Any) -> dict[str, Any]:
        body = {"model": "nano", "messages": [{"role": "user", "content": f"Say {name}."}], "max_tokens": 4, **more}
        return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}

    write(tmp_path / "in.jsonl", [line("a"), line("b"), line("c", tools=[{"type": "function"}])])
    command = ["batch", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), "--engine", "ray"]
    assert main(command) == 1
    rows = [json.loads(text) for text in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert {row["custom_id"]: row["response"]["status_code"] for row in rows} == {"a": 200, "b": 200, "c": 400}


def test_a_model_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch(source, tmp_path / "out.jsonl", "--engine", "ray", "--model", str(tmp_path)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert "config.json" in said
