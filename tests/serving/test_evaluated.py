"""`flashsloth eval` asks the server and the model itself: the answers are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_pope import draw_pope
from served import MODEL, serving

from flashsloth.cli.app import main
from flashsloth.evaluation.predictions import PREDICTIONS


def answers_of(folder: Path) -> dict[str, tuple[str, int, str]]:
    lines = [json.loads(line) for line in (folder / PREDICTIONS).read_text().splitlines()]
    return {one["id"]: (one["answer"], one["tokens"], one["finish_reason"]) for one in lines if "answer" in one}


def test_the_server_predicts_what_the_process_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw_pope(tmp_path / "data", pictures=6)
    command = ["eval", "pope", "--data", str(data), "--device", "cpu", "--out"]
    assert main([*command, str(tmp_path / "process")]) == 0
    with serving() as url:
        asked = [*command, str(tmp_path / "server"), "--model", f"{url}/v1", "--name", MODEL]
        assert main([one for one in asked if one not in ("--device", "cpu")]) == 0
    there, here = (answers_of(tmp_path / name) for name in ("server", "process"))
    assert len(there) == 18
    assert there == here
