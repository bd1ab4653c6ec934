"""stdin, stdout and stderr as they are in the wild: closed, of any encoding, or full.

In: the streams that the process was started with. Out: streams that never stop a command by what a text holds. What a
terminal's encoding lacks is written as `\\xe9`; bytes that are not UTF-8 are read as half characters, which
:func:`readable` makes text of, or refuses.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO

from flashsloth.commands.failures import CommandError

STDIN, STDOUT, STDERR = 0, 1, 2


def prepare_streams() -> None:
    """Make the three streams usable; to be called before anything is read or written."""
    if sys.stdin is None:
        sys.stdin = _held_open(STDIN, os.O_RDONLY, "r")  # at its end from the start
    if sys.stdout is None:
        sys.stdout = _held_open(STDOUT, os.O_RDONLY, "w")  # writing fails, as it does for every command of a shell
    if sys.stderr is None:
        sys.stderr = _held_open(STDERR, os.O_WRONLY, "w")  # nobody listens
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _held_open(descriptor: int, flags: int, mode: str) -> IO[str]:
    """A closed stream's place taken, so that no file of the command gets its number, and what C code prints with it."""
    opened = os.open(os.devnull, flags)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
    return open(descriptor, mode, encoding="utf-8", closefd=False)


def readable(text: str, what: str) -> str:
    """A text from the command line or stdin, whose bytes Python may have kept as half characters.

    Raises:
        CommandError: if the bytes are not UTF-8.
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        place = getattr(error, "start", 0)
        raise CommandError(f"{what} is not UTF-8 at byte {place}; expected a text in UTF-8") from error


def close_stdout() -> None:
    """After stdout could not be written: let Python's last flush go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream of a test has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


__all__ = ["close_stdout", "prepare_streams", "readable"]
