"""Errors to exit codes: a user's mistake is one line and 2, one of ours is one line, a way to see more, and 1.

What ended through nobody's mistake (a full disk, a lost process) has an `exit_code` of its own, which is 1 too.

In: an exception that a command let out. Out: a line on stderr, and the exit code.
"""

from __future__ import annotations

import os
import sys
import traceback

OURS, USERS, INTERRUPTED = 1, 2, 130
"""Exit codes: our own fault, the user's mistake, Ctrl-C (128 + SIGINT)."""
DEBUG_VARIABLE = "FLASHSLOTH_DEBUG"
PACKAGE = "flashsloth"
LISTED = "  "
"""How the lines of a list of mistakes begin."""
FILE_MISTAKES = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


class CommandError(ValueError):
    """A mistake on the command line that only the command can see."""


def report_failure(error: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    from flashsloth.commands.terminal import print_error

    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    if _is_usage_error(error):
        context = getattr(error, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context is not None else ""
        print_error(f"{one_line(error.format_message()).rstrip('.')}{hint}")  # type: ignore[attr-defined]
        return USERS
    if isinstance(error, FILE_MISTAKES):
        print_error(f"{error.filename}: {error.strerror}" if error.filename else one_line(error))
        return USERS
    if is_users_mistake(error):
        print_error(said_by(error))
        return int(getattr(error, "exit_code", USERS))
    print_error(
        f"this is not your mistake but ours: {type(error).__name__}: {one_line(error)} "
        f"(set {DEBUG_VARIABLE}=1 to see where it happened)"
    )
    return OURS


def is_users_mistake(error: BaseException) -> bool:
    """Whether this package raised it on purpose: a ValueError of its own kind, or from its own code."""
    if not isinstance(error, ValueError):
        return False
    if any(kind.__module__.partition(".")[0] == PACKAGE for kind in type(error).__mro__):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).partition(".")[0] == PACKAGE


def said_by(error: BaseException) -> str:
    """An error's message: in one line, unless it lists several mistakes of a file, indented below one another."""
    first, *rest = str(error).splitlines() or [""]
    if rest and all(line.startswith(LISTED) for line in rest):
        return "\n".join([first, *(LISTED + one_line(line) for line in rest)])
    return one_line(error)


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(str(message).split())


def silence_stdout() -> None:
    """After the reader of a pipe has gone: let Python's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_usage_error(error: Exception) -> bool:
    """The command-line parser's own errors; where their class lives differs between versions of typer."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")
