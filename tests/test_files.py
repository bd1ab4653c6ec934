"""A file is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashsloth.files import whole_file, write_whole


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


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    path, link = tmp_path / "report.json", tmp_path / "link.json"
    link.symlink_to(path)
    for text in ("new", "newer"):
        write_whole(link, text)
        assert link.is_symlink()
        assert path.read_text(encoding="utf-8") == text


def test_a_folder_is_named_and_stays(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as raised:
        write_whole(tmp_path, "text")
    assert raised.value.filename == str(tmp_path)
    assert list(tmp_path.parent.glob(".*.part")) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """A pipe here; `--report /dev/stdout` of a superuser is a device that nobody must lose."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
