"""Files: written whole or not at all, locked, and told from the pointers that Git LFS leaves in their place.

In: a path. Out: another beside it to write to, which takes the first one's place when nothing went wrong, and is gone
when something did. Or, of a file open for writing, a lock that keeps other processes out; or whether a file is an LFS
pointer: pictures, data and weights all ask here.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FIRST_BYTE = 1
"""Bytes that Windows locks, from the beginning of the file; they need not be there."""
SIGNATURE = b"version https://git-lfs"
LFS_POINTER = "a Git LFS pointer, not the file itself (`git lfs pull` fetches that)"
"""What an error says that such a file is."""


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


def lock_file(descriptor: int, *, wait: bool) -> None:
    """Lock an open file, at once or as soon as nobody else has it, until it is closed or the process ends.

    On POSIX the lock belongs to the process, so that its children do not hold it; closing any other descriptor of the
    same file gives it up.

    Raises:
        BlockingIOError: if another process has it and `wait` is false.
        OSError: if the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        while True:
            try:
                return msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, FIRST_BYTE)
            except OSError as error:
                if not wait:
                    raise BlockingIOError(error.errno, "another process has locked this file") from error
                if error.errno != errno.EDEADLOCK:  # which says that ten seconds were not enough
                    raise
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # what some systems say for "another process has it"
        raise BlockingIOError(error.errno, "another process has locked this file") from error


def is_lfs_pointer(file: str | os.PathLike[str]) -> bool:
    """Whether a file is a pointer; raises OSError where it cannot be read."""
    with open(file, "rb") as opened:
        return opened.read(len(SIGNATURE)) == SIGNATURE
