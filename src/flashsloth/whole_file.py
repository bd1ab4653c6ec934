"""Files and folders that are there whole or not at all: written aside, then renamed.

In: a path. Out: another beside it to write to, which takes the first one's place when nothing went wrong, and is gone
when something did.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what shall stand at `path`; hidden, so that who lists a folder does not take it for a file.

    What a link leads to is replaced, not the link; a device or a pipe, which cannot be, is written to as it is.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to work in, which takes its place, and that of all it held, when all went well."""
    work, old = _beside(target, "partial"), _beside(target, "old")
    try:
        work.mkdir(parents=True)
    except OSError as error:  # said of the folder that was asked for
        raise type(error)(error.errno, error.strerror, str(target)) from error
    try:
        yield work
        is_taken = target.exists()
        if is_taken:
            os.replace(target, old)
        try:
            os.replace(work, target)
        except OSError:
            if is_taken:
                os.replace(old, target)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, what: str) -> Path:
    """A name in the target's own folder that nobody else has."""
    return target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}.{what}")


def write_whole(path: Path, text: str) -> None:
    """Write a text file, in UTF-8."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


__all__ = ["whole_file", "whole_folder", "write_whole"]
