"""A conversation at the terminal: what is a command, what is a path, and that no mistake ends it."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
import tiny
from talkative import save_talkative

from flashsloth.cli.app import main
from flashsloth.cli.ask import path_of, paths_of
from flashsloth.cli.chat import LEAVING

FEW = ["--max-new-tokens", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_talkative(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("it's.png", "two words.png", "plain.png", "back\\slash.png"):
        tiny.picture().save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_names_as_people_give_them(pictures: Path) -> None:
    quoted = shlex.quote(str(pictures / "it's.png"))
    for line, expected in [
        ("it's.png", ["it's.png"]),
        ("two words.png", ["two words.png"]),
        ("  two words.png ", ["two words.png"]),
        ("two\\ words.png", ["two words.png"]),
        ("'two words.png' plain.png", ["two words.png", "plain.png"]),
        ("back\\slash.png", ["back\\slash.png"]),
        (quoted, [str(pictures / "it's.png")]),
        ("~/plain.png", [str(pictures / "plain.png")]),
        (f"file://{pictures}/two%20words.png", [str(pictures / "two words.png")]),
        ("plain.png missing.png", ["plain.png", "missing.png"]),
        ("no such file.png", ["no such file.png"]),
        ("isn't.png", ["isn't.png"]),
        ("", [""]),
    ]:
        assert paths_of(line) == expected, line
    assert path_of("http://somewhere/a.png") == "http://somewhere/a.png"


def test_no_mistake_ends_it(
    pictures: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mistakes = [
        ("/image isn't.png", "no such file"),
        ("/image 'no.png", "no such file"),
        ('/image "', "no such file"),
        ("/image", "path is empty"),
        ("/image .", "is a directory"),
        ("/IMAGE http://a/b.png", "nothing is fetched"),
        ("/image plain.png missing.png", "'missing.png': no such file"),
        ("/FROB", "there is no command /FROB"),
        ("half \ud800", "not UTF-8"),
        ("why " * 2000, "context is 1,024"),
    ]
    lines = [line for line, _ in mistakes] + ["/Image it's.png", "What?", "/EXIT", "never asked"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert main(["chat", "-m", checkpoint, *FEW]) == 0
    out, err = capsys.readouterr()
    said = err.splitlines()
    assert len(said) == len(mistakes)
    for (_, message), line in zip(mistakes, said, strict=True):
        assert message in line
    assert out.count("\n") == 1


@pytest.mark.parametrize("line", [*LEAVING, "EXIT", "Quit", "/QUIT"])
def test_leaving(
    line: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{line}\nnever asked\n"))
    assert main(["chat", "-m", checkpoint, *FEW]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_picture_waits_for_a_question_that_can_be_asked(
    pictures: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for lines in (["/image plain.png", "why " * 2000, "What?"], ["/image plain.png", "What?"], ["What?"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
        assert main(["chat", "-m", checkpoint, *FEW]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]
