"""A lock on an open file that keeps other processes out, on every system.

In: the descriptor of a file open for writing. Out: the lock, which ends when the file is closed or the process ends,
killed or not. On POSIX it belongs to the process, so that its children do not hold it; and closing any other
descriptor of the same file gives it up.
"""

from __future__ import annotations

import errno
import os
import sys

FIRST_BYTE = 1
"""Bytes that Windows locks, from the beginning of the file; they need not be there."""


def lock_file(descriptor: int, *, wait: bool) -> None:
    """Lock an open file, at once or as soon as nobody else has it.

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
