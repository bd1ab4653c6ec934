"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashsloth.whole_file import whole_file, write_whole


def test_a_file_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for text in ("old", "ä, longer than before"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_the_one_before_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_whole(path, "old")

    def fill_the_disk() -> None:
        with whole_file(path) as unfinished:
            unfinished.write_text("ne", encoding="utf-8")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fill_the_disk()
    assert path.read_text(encoding="utf-8") == "old"
