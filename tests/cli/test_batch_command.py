"""`flashsloth batch`, as it is typed: what is shown, and what is left whenever it ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest
import tiny
from talkative import save_talkative

from flashsloth.cli.app import main

COUNT = 40
KILLS = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_talkative(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    for number in range(3):
        tiny.picture(number).save(folder / f"{number}.png")
    write(folder / "in.jsonl", questions())
    return folder / "in.jsonl"


def questions() -> list[dict[str, Any]]:
    named = ((f"{number % 4}.png", f"What is {number}?") for number in range(COUNT))  # 3.png is not there
    return [
        {"id": number, "picture": picture, "question": question} for number, (picture, question) in enumerate(named)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def arguments(asked: Path, out: Path, checkpoint: str, *more: str) -> list[str]:
    options = ["-m", checkpoint, "--device", "cpu", "--max-tokens", "4", *more]
    return ["batch", str(asked), str(out), *options]


def read(path: Path) -> dict[Any, Any]:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def whole(asked: Path, checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """The answers of a run that was not interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out.jsonl"
    assert main(arguments(asked, out, checkpoint)) == 1
    return read(out)


def test_what_is_shown(
    tmp_path: Path, asked: Path, checkpoint: str, whole: dict[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(arguments(asked, out, checkpoint)) == 1
    shown = capsys.readouterr()
    assert shown.out == f"30 of 40 lines are answered in {out}\n"
    assert shown.err.startswith("in.jsonl: 10 of 40 lines are done, about ")
    assert shown.err.endswith(
        f"error: 10 of 40 lines could not be answered; {out} says why, and the same command asks them again\n"
    )
    assert read(out) == whole
    assert main(arguments(asked, out, checkpoint, "--json")) == 1
    told = {"lines": 40, "already": 30, "asked_again": 10, "answered": 0, "failed": 10, "out": str(out)}
    assert json.loads(capsys.readouterr().out) == told


def test_where_all_is_answered_it_says_so(
    tmp_path: Path, asked: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    command = arguments(asked.parent, out, checkpoint, "--question", "What?", "--choice", "yes", "--choice", "no")
    for before in ("", ", 3 of them before"):
        assert main(command) == 0
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == (f"3 of 3 lines are answered in {out}{before}\n", "")
    assert {row["answer"] for row in read(out).values()} <= {"yes", "no"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["none.jsonl", "out.jsonl"], "none.jsonl: there is no such file or folder"),
        (["in.jsonl", "in.jsonl"], "in.jsonl is what is asked; expected another file for the answers"),
        (["in.jsonl", "none/out.jsonl"], "there is no folder"),
        (["in.jsonl", "out.jsonl", "--top-p", "0"], "top_p is 0"),
        (["in.jsonl", "out.jsonl", "--resolution", "hd"], "this model takes one view"),
        (["in.jsonl", "out.jsonl", "-q", " "], "--question is empty"),
        (["same.jsonl", "out.jsonl"], "has 1 ids more than once: '1' (line 1 and line 2)"),
        (["in.jsonl", "out.jsonl", "--allow-media-host", "a"], "--allow-media-host is given, but only OpenAI's lines"),
        (["openai.jsonl", "out.jsonl"], "--max-tokens is given, but OpenAI's lines say that"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    changed: list[str], said: str, tmp_path: Path, asked: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in.jsonl", questions()[:3])
    write(tmp_path / "same.jsonl", [questions()[1]] * 2)
    body = {"model": "nano", "messages": [{"role": "user", "content": "Hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    write(tmp_path / "openai.jsonl", [line])
    source, out, *more = changed
    assert main(arguments(tmp_path / source, tmp_path / out, checkpoint, *more)) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert (shown.err.count("\n"), shown.out) == (1, "")
    assert not (tmp_path / "out.jsonl").exists()
    assert (tmp_path / "in.jsonl").read_text(encoding="utf-8").count("\n") == 3


@pytest.mark.parametrize("kills", [KILLS, pytest.param(100, marks=pytest.mark.slow)])
def test_after_any_number_of_kills_each_id_is_there_once(
    kills: int, tmp_path: Path, asked: Path, checkpoint: str, whole: dict[Any, Any]
) -> None:
    """Killed after a random number of further bytes, or at a random time; shuffled, and torn, in between."""
    draw, out, source = random.Random(17), tmp_path / "out.jsonl", tmp_path / "in.jsonl"
    for number in range(3):
        os.link(asked.parent / f"{number}.png", tmp_path / f"{number}.png")
    rows, lost = questions(), 0
    for _ in range(kills):
        draw.shuffle(rows)
        write(source, rows)
        process = forked.Process(main, arguments(source, out, checkpoint))
        wanted = (out.stat().st_size if out.is_file() else 0) + draw.randrange(2000)
        until = time.monotonic() + draw.choice((1.0, forked.SECONDS))
        while process.is_alive() and time.monotonic() < until and not (out.is_file() and out.stat().st_size > wanted):
            time.sleep(forked.POLL_SECONDS / 10)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        assert process.join()
        content = out.read_bytes() if out.is_file() else b""
        assert content.endswith(b"\n") or not content
        if content and draw.random() < 0.5:  # a power failure tears what was written last, and what was before stays
            out.write_bytes(content[: draw.randrange(len(content))])
            lost += 1
        elif content and draw.random() < 0.3:  # much is still to do
            out.write_bytes(b"".join(content.splitlines(keepends=True)[:2]))
    assert main(arguments(source, out, checkpoint)) == 1
    found = read(out)
    assert {*found} == {*whole}
    for name, row in found.items():
        kept = {key: value for key, value in row.items() if key != "error"}
        assert kept == {key: value for key, value in whole[name].items() if key != "error"}
        assert (row["error"] is None) == (whole[name]["error"] is None)


def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, asked: Path, checkpoint: str, whole: dict[Any, Any]
) -> None:
    """Files of at most a few kilobytes stand for it: a write fails in the midst of a run, as it does there."""
    out = tmp_path / "out.jsonl"
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (7000, 7000)); "
        "from flashsloth.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    ended = forked.run_python(code, *arguments(asked, out, checkpoint))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"error: {out}: File too large: free some space and try again"
    assert "Traceback" not in ended.stderr
    content = out.read_bytes()
    assert 5000 < len(content) <= 7000
    assert content.endswith(b"\n")
    kept = read(out)
    assert main(arguments(asked, out, checkpoint)) == 1
    answered = {name for name, row in kept.items() if row["error"] is None}
    assert out.read_bytes().startswith(b"".join(one for one in content.splitlines(True) if b'"error": null' in one))
    assert answered
    assert read(out) == whole


def test_ctrl_c_leaves_whole_lines(tmp_path: Path, asked: Path, checkpoint: str) -> None:
    out = tmp_path / "out.jsonl"
    many = [{**row, "id": f"{row['id']} {again}"} for again in range(50) for row in questions()]
    write(asked.parent / "many.jsonl", many)
    command = [*forked.python(), "-m", "flashsloth", *arguments(asked.parent / "many.jsonl", out, checkpoint)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + forked.SECONDS
    while not (out.is_file() and out.stat().st_size):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(forked.POLL_SECONDS)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=forked.SECONDS)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert read(out)


def test_without_a_question_for_a_folder_nothing_is_loaded(tmp_path: Path) -> None:
    """A mistake costs no import of torch."""
    code = "import sys; sys.modules['torch'] = None; from flashsloth.cli.app import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "batch", str(tmp_path), str(tmp_path / "out.jsonl")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "give --question" in ended.stderr
