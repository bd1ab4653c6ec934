"""The painting's file: mistakes are told before anything is loaded, and the file is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from flashsloth.commands.attention_file import check_attention_file, write_attention
from flashsloth.commands.failures import CommandError
from flashsloth.inference.attention import Attention


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
