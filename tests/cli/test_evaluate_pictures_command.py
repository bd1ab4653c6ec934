"""`flashsloth eval pictures` and packs of `flashsloth world`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashsloth.cli.app import main
from flashsloth.world.pack import Pack

EXAMPLES = Path(__file__).parents[2] / "examples" / "questions.yaml"


def test_eval_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "pictures", str(EXAMPLES), "--device", "cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] == 6
    assert report["total"]["asked"] == 15
    assert report["total"]["right"] > 7  # the small model knows simple pictures by others
    assert main(["eval", "pictures", str(EXAMPLES), "--device", "cpu"]) == 0
    assert "question" in capsys.readouterr().out


def test_eval_pictures_of_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "pictures", str(tmp_path / "none.yaml")]) == 2
    assert "no file of questions" in capsys.readouterr().err


def test_world_as_a_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pack"
    wanted = ["--format", "pack", "--count", "3", "--side", "24", "--grid", "4", "--unknown", "0.5"]
    assert main(["world", str(folder), *wanted]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert len(Pack(folder)) == 3
    assert main(["world", str(folder), *wanted]) == 2
    assert "is a finished pack" in capsys.readouterr().err
