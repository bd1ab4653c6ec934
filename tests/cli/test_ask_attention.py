"""The painting's file: mistakes are told before anything is loaded, and the file is whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from talkative import save_talkative

from flashsloth.cli.app import main
from flashsloth.cli.ask import check_attention_file, write_attention
from flashsloth.cli.terminal import CommandError
from flashsloth.inference.visual_attention import Attention


def test_mistakes_are_told(tmp_path: Path) -> None:
    check_attention_file(tmp_path / "looked.PNG", 1)
    (tmp_path / "folder.png").mkdir()
    for path, pictures, said in (
        (tmp_path / "looked.png", 0, "none was given"),
        (tmp_path / "looked.jpg", 1, r"ends in \.png"),
        (tmp_path / "folder.png", 1, "is a folder"),
        (tmp_path / "nowhere" / "looked.png", 1, "there is no folder"),
    ):
        with pytest.raises(CommandError, match=said):
            check_attention_file(path, pictures)


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    sap, queries = np.full((1, 2, 2, 3, 3), 1 / 9, np.float32), np.full((3, 1, 6, 6), 1 / 36, np.float32)
    attention = Attention((40, 30), np.array([[0.0, 0.0, 40.0, 30.0]]), sap, queries)
    path = tmp_path / "looked.png"
    write_attention(path, [tiny.picture(1)], [attention], "What is this?", "a dog")
    assert [file.name for file in tmp_path.iterdir()] == ["looked.png"]
    with Image.open(path) as painted:
        painted.load()
        assert painted.format == "PNG"
        assert painted.width > 3 * 300


def test_ask_paints_where_the_model_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, painted = str(save_talkative(tmp_path / "model")), tmp_path / "looked.png"
    names = [str(tmp_path / f"{number}.png") for number in range(2)]
    for number, name in enumerate(names):
        tiny.picture(number).save(name)
    few = ["-m", model, "--max-new-tokens", "4", "--device", "cpu"]
    assert main(["ask", *names, "What is this?", *few]) == 0
    plain = capsys.readouterr().out
    assert main(["ask", "--attention", str(painted), *names, "What is this?", *few]) == 0
    assert capsys.readouterr().out == plain
    with Image.open(painted) as two:
        assert two.height > 2 * 300
    painted.unlink()
    assert main(["ask", "--attention", str(painted), names[0], "What is this?", *few, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["attention"] == str(painted)
    assert painted.is_file()
    assert main(["ask", "--attention", str(painted), "What is this?", *few]) == 2
    assert "paints over pictures" in capsys.readouterr().err
