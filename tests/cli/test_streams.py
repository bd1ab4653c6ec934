"""stdin, stdout and stderr that are closed, full, or of another encoding: a line, an exit code, and no traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from forked import python
from talkative import save_talkative

from flashsloth.cli.app import main
from flashsloth.cli.terminal import CommandError, judge, readable

FEW = ["--max-new-tokens", "3", "--device", "cpu"]
FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_talkative(tmp_path_factory.mktemp("checkpoint")))


def stream(encoding: str, content: bytes = b"") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding=encoding)


def as_argument(text: str) -> str:
    """A question in UTF-8 as Python hands it over where the locale is C: bytes kept as half characters."""
    return text.encode("utf-8").decode("ascii", "surrogateescape")


def test_bytes_of_a_question_become_text() -> None:
    assert readable(as_argument("Größe? 尺寸"), "the question") == "Größe? 尺寸"
    assert readable("Größe?", "the question") == "Größe?"


@pytest.mark.parametrize("text", ["\udcff", "a\ud800b"])
def test_what_is_no_utf_8_is_a_mistake(text: str, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="not UTF-8 at byte"):
        readable(text, "the question")
    assert main(["ask", text, "-m", checkpoint, *FEW]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_answers_and_json_under_any_encoding(
    encoding: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question, name = "Größe? 尺寸 \U0001f600", os.fsencode(tmp_path) + b"/\xff.png"
    tiny.picture().save(os.fsdecode(name), "PNG")
    out = stream(encoding)
    monkeypatch.setattr("sys.stdout", out)
    arguments = ["ask", os.fsdecode(name), as_argument(question), "-m", checkpoint, *FEW, "--json"]
    assert main(arguments) == 0
    assert capsys.readouterr().err == ""
    assert isinstance(out.buffer, io.BytesIO)
    found = json.loads(out.buffer.getvalue().decode(encoding))
    assert found["question"] == question
    assert found["pictures"] == [os.fsdecode(name)]


def test_an_answer_that_a_terminal_cannot_show(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flashsloth.inference.answer.Detokenizer.add", lambda *given: "")
    monkeypatch.setattr("flashsloth.inference.answer.Detokenizer.finish", lambda *given: "é尺")
    out = stream("ascii")
    monkeypatch.setattr("sys.stdout", out)
    assert main(["ask", "What?", "-m", checkpoint]) == 0
    assert isinstance(out.buffer, io.BytesIO)
    assert out.buffer.getvalue() == b"\\xe9\\u5c3a\n"


def test_a_conversation_goes_on_after_bytes_that_are_no_utf_8(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", stream("utf-8", "What \xff?\nGröße?\nexit\nnever asked\n".encode("latin-1")))
    assert main(["chat", "-m", checkpoint, *FEW]) == 0
    assert capsys.readouterr().err.count("is not UTF-8 at byte") == 2
    monkeypatch.setattr("sys.stdin", stream("ascii", "Größe?\n".encode()))
    assert main(["chat", "-m", checkpoint, *FEW]) == 0
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["ask", "What?", "--json"], ["plan", "nano", "--device", "meta"]])
def test_a_full_disk_behind_stdout(
    arguments: list[str], checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "ask":
        arguments = [*arguments, "-m", checkpoint, *FEW]
    with FULL.open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        code = main(arguments)
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == ((2, 1) if arguments[0] == "plan" else (1, 1))
    assert "ours" not in err


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [(">&-", 1, "stdout is closed"), ("2>&-", 0, ""), ("<&-", 0, ""), ("2>&- >&-", 1, "")],
)
def test_closed_streams(redirection: str, code: int, message: str) -> None:
    command = f'"{sys.executable}" -m flashsloth --version {redirection}'
    finished = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert finished.returncode == code
    assert message.encode() in finished.stderr
    assert finished.stderr.count(b"\n") == bool(message)


def test_a_conversation_whose_stdin_is_closed_ends(checkpoint: str) -> None:
    command = shlex.join([*python(), "-m", "flashsloth", "chat", "-m", checkpoint, "--device", "cpu"]) + " <&-"
    finished = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")


def test_a_question_under_the_c_locale(checkpoint: str) -> None:
    command = [
        sys.executable,
        "-m",
        "flashsloth",
        "ask",
        "Größe? 尺寸".encode(),
        "-m",
        checkpoint,
        *FEW,
        "--json",
    ]
    environment = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C"}
    finished = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert json.loads(finished.stdout)["question"] == "Größe? 尺寸"


@contextlib.contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file can grow beyond `most` bytes meanwhile: the error of a quota, as a full disk gives it."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("command", ["world", "pack", "convert", "table"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    command: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    table = tmp_path / "answers.csv"
    tiny.picture().save(tmp_path / "a.png")
    table.write_text("image,question,answer\n" + "a.png,What is this?,A thing\n" * 50)
    arguments = {
        "world": ["world", str(out), "--count", "2"],
        "pack": ["world", str(out), "--count", "2", "--format", "pack"],
        "convert": ["convert", checkpoint, str(out)],
        "table": ["data", "table", str(table), "--out", str(out), "--held-out", "0"],
    }[command]
    before = sorted(tmp_path.iterdir())
    with full_disk(600):
        code = main(arguments)
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (1, 1)
    assert "ours" not in err
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path not in before]
    assert all(path.stat().st_size <= 600 and path.suffix == ".json" for path in left), left  # a pack's plan
    assert command == "pack" or not left


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
@pytest.mark.parametrize("numbers", [10, 100_000])
def test_torch_says_in_other_words_that_a_disk_is_full(numbers: int) -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.save(torch.zeros(numbers), "/dev/full")
    assert judge(raised.value) == (1, "No space left on device: free some space and try again")
