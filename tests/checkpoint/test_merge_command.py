"""`flashsloth merge` and `ask` on the command line: the proof on stderr, the folder on stdout, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashsloth.cli.app import main


def test_merge_prints_the_proof_and_the_folder(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "merged")
    assert main(["merge", str(adapter), out]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    for expected in (f"base: {base}", "merged, they differ by up to", "as written, in float16", "allowed are 1e-04"):
        assert expected in shown.err
    assert main(["merge", str(adapter), out, "--force", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["merging"]["largest"] / found["merging"]["scale"] < found["merging_tolerance"]
    assert main(["info", out]) == 0


def test_mistakes_are_one_line(adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(base), str(tmp_path / "x")], "expected an adapter"),
        ([str(adapter), str(base)], "holds what is to be merged"),
        ([str(adapter), str(tmp_path / "x"), "--base", "nano"], "is not the base of"),
        ([str(adapter), str(adapter.parent)], "holds what is to be merged"),
    ):
        assert main(["merge", *arguments]) == 2
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.err.count("\n") == 1


def test_ask_takes_an_adapter(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "What?", "--model", str(adapter), "--max-new-tokens", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(adapter)
