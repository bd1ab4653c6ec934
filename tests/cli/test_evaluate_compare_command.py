"""`flashsloth eval compare`: what it prints and writes, and how mistakes end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pope_runs import draw_pope, right, write_run, wrong

from flashsloth.cli.app import main


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    items = draw_pope(tmp_path / "data")
    made = (
        write_run(tmp_path / "a", items, right),
        write_run(tmp_path / "b", items, lambda place, item: (wrong if place % 3 == 0 else right)(place, item), "mine"),
    )
    return str(made[0]), str(made[1])


def test_a_table_and_what_changed(runs: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "compare", *runs]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert ["accuracy", "100.00", "66.67", "−33.33", "−33.33", "to", "−33.33"] in [
        line.split() for line in out.splitlines()
    ]
    assert "mine scores 33.33 less, more than chance explains. It won 0 and lost 12 of 36." in out
    assert "12 lost, 0 won, 0 other answer, same score, 24 same answer" in out
    assert len([line for line in out.splitlines() if line.startswith("  lost  random/")]) == 4


def test_json_and_a_page(runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["eval", "compare", *runs, "--out", str(page), "--data", str(tmp_path / "data"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["lost"] == 12
    assert page.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 4


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--data", "data"], "--data is for the page's pictures"),
        (["--most", "0"], "--most is 0; expected at least 1"),
        (["--out", "page.html", "--data", "empty"], "has no data of POPE"),
    ],
)
def test_mistakes_are_one_line(
    runs: tuple[str, str],
    more: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["eval", "compare", *runs, *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert reason in err
    assert not (tmp_path / "page.html").exists()


def test_runs_of_other_benchmarks_are_refused(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(runs[1], "predictions.jsonl")
    file.write_text(file.read_text().replace('"task": "pope"', '"task": "mme"', 1))
    assert main(["eval", "compare", *runs]) == 2
    assert "is of task pope and" in capsys.readouterr().err
