"""Errors to exit codes: a user's mistake is one line and 2; what the machine refuses is one line and 1; a fault of ours
is one line, a way to see more, and 1.

What ended through nobody's mistake (a full disk, a lost process) has an `exit_code` of its own, which is 1 too.

In: an exception that a command let out. Out: a line on stderr, and the exit code.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import traceback
from concurrent.futures import BrokenExecutor

OURS, USERS, INTERRUPTED = 1, 2, 130
"""Exit codes: our own fault or the machine's, the user's mistake, Ctrl-C (128 + SIGINT)."""
DEBUG_VARIABLE = "FLASHSLOTH_DEBUG"
PACKAGE = "flashsloth"
LISTED = "  "
"""How the lines of a list of mistakes begin."""
FILE_MISTAKES = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = re.compile(
    r"os error (28|122|27)\b|No space left|File too large|quota exceeded|PytorchStreamWriter failed"
    r"|enforce fail at inline_container|iostream error"
)
"""How libraries say it that do not raise OSError: safetensors, torch."""
_MEMORY_TEXTS = re.compile(r"can't allocate memory|out of memory|Unable to allocate")


class CommandError(ValueError):
    """A mistake on the command line that only the command can see."""


def report_failure(error: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    from flashsloth.commands.terminal import print_error

    with contextlib.suppress(OSError):  # stderr may be closed or full as well
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exception(error)
        code, message = judge(error)
        print_error(message)
    return code


def judge(error: Exception) -> tuple[int, str]:
    """(exit code, the line that says what went wrong)."""
    if _is_usage_error(error):
        context = getattr(error, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context is not None else ""
        return USERS, f"{one_line(error.format_message()).rstrip('.')}{hint}"  # type: ignore[attr-defined]
    refusal = machines_refusal(error)
    if refusal is not None and not is_users_mistake(error):  # this package's own words tell more
        return OURS, refusal
    if isinstance(error, FILE_MISTAKES):
        return USERS, f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else one_line(error)
    if is_users_mistake(error):
        return int(getattr(error, "exit_code", USERS if refusal is None else OURS)), said_by(error)
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return OURS, f"{place}{error.strerror}"
    return OURS, (
        f"this is not your mistake but ours: {type(error).__name__}: {one_line(error)} "
        f"(set {DEBUG_VARIABLE}=1 to see where it happened)"
    )


def machines_refusal(error: BaseException) -> str | None:
    """What to say where the disk is full, stdout closed, or memory at its end; None where it is something else."""
    reason: BaseException | None = error
    while reason is not None:
        file = getattr(reason, "filename", None)
        place = f"{os.fsdecode(file)}: " if isinstance(file, str | bytes) else ""
        if isinstance(reason, OSError) and reason.errno in FULL:
            return f"{place}{reason.strerror}: make room and try again"
        if isinstance(reason, OSError) and reason.errno == errno.EBADF:
            return "stdout is closed; expected somewhere to write to, as /dev/null"
        if isinstance(reason, MemoryError) or (isinstance(reason, RuntimeError) and _MEMORY_TEXTS.search(str(reason))):
            return "not enough memory: take a smaller model, picture or batch, or --dtype bfloat16"
        if isinstance(reason, BrokenExecutor):
            return "a process of those that share the work was killed, for its memory perhaps: take fewer --workers"
        if not isinstance(reason, OSError | ValueError) and _FULL_TEXTS.search(str(reason)):
            return "No space left on device: make room and try again"
        reason = reason.__cause__ or reason.__context__
    return None


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


def _is_usage_error(error: Exception) -> bool:
    """The command-line parser's own errors; where their class lives differs between versions of typer."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")
