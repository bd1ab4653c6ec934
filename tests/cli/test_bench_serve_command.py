"""`flashsloth bench serve` as it is typed: a row with its figures, what is kept, and mistakes."""

import json
from pathlib import Path

import pytest

from flashsloth.cli.app import main


def test_a_row_is_measured_kept_and_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["bench", "serve", "--only", "P2", "--share", "0.05", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "P2, refused with a picture, then asked about it: about a minute" in shown.err
    assert "held" in shown.out
    [line] = (tmp_path / "serving.jsonl").read_text().splitlines()
    assert json.loads(line)["holds"] is True
    assert "| P2 |" in (tmp_path / "serving.md").read_text()
    assert main(["bench", "serve", "--from", str(tmp_path), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["name"] == "P2"
    assert {"name": "others", "value": 100.0, "unit": "", "most": None, "least": 100} in found["figures"]


def test_a_missed_row_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = {"name": "memory", "value": 9.0, "unit": "bytes", "most": 5.0, "least": None}
    row = {"kind": "row", "holds": False, "name": "L1", "figures": [figure], "wrong": ["request 7"], "seconds": 1.0}
    (tmp_path / "serving.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["bench", "serve", "--from", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "missed" in out
    assert "L1: request 7" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "0"], "--share is 0; expected more than 0 and at most 1"),
        (["--share", "2"], "--share is 2; expected"),
        (["--only", "L9"], "there is no row 'L9'; expected some of L1"),
        (["--model", "large"], "--model is 'large'; expected nano or true-size"),
        (["--model", "true-size", "--only", "L1"], "expected one of them"),
        (["--peer"], "--peer was given without --model true-size"),
        (["--from", "nowhere"], "nowhere: No such file or directory"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", *arguments]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]
