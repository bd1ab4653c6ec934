"""Files that are there whole or not at all: written aside, then renamed.

In: a path. Out: another beside it to write to, which takes the first one's place when nothing went wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what shall stand at `path`; hidden, so that who lists a folder does not take it for a file."""
    unfinished = path.with_name(f".{path.name}.part")
    yield unfinished
    os.replace(unfinished, path)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, in UTF-8."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


__all__ = ["whole_file", "write_whole"]
