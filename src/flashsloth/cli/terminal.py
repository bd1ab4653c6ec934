"""What a command shows beside its result: waiting, progress, errors; and the streams that all of it goes through.

In: messages, and the exception that a command let out. Out: results on stdout, everything else on stderr (coloured on a
terminal; off one, errors as plain lines, and how far a command is that takes hours), and an exit code. A user's mistake
is one line and 2; what the machine refuses (a full disk, a lost process) is one line and 1, or the error's own
`exit_code`; a fault of ours is one line, a way to see more, and 1.

The streams may be closed, of any encoding, or full, and never stop a command by what a text holds. What a terminal's
encoding lacks is written as `\xe9`; bytes that are not UTF-8 are read as half characters, which :func:`readable` turns
into text, or refuses.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import IO, TYPE_CHECKING, Any, TypedDict, Unpack

from rich.console import Console
from rich.text import Text

from flashsloth.errors import FlashSlothError

if TYPE_CHECKING:
    from flashsloth.inference.engine.config import EngineConfig
    from flashsloth.inference.pipeline import FlashSloth

PACKAGE_LOGGER = "flashsloth"


class LoadSettings(TypedDict, total=False):
    """What few commands say of how a model is loaded; see :func:`flashsloth.load`."""

    engine: EngineConfig
    picture_cache: int
    adapter: str | None


def stderr() -> Console:
    """The console for everything that is not a result. Made when it is used: tests and pipes exchange the stream."""
    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    """The console for results."""
    return Console(highlight=False)


def print_error(message: str) -> None:
    """One line: `error: ...`."""
    stderr().print(Text("error: ", style="bold red") + Text(message), soft_wrap=True)


def print_warning(message: str) -> None:
    """One line, off a terminal too: the result is not what was asked for."""
    stderr().print(Text("warning: ", style="bold yellow") + Text(message), soft_wrap=True)


def print_progress(message: str) -> None:
    """A quiet line, off a terminal too: how far a command is that takes hours."""
    stderr().print(Text(message, style="dim"), soft_wrap=True)


def print_note(message: str) -> None:
    """A quiet line, for a person only."""
    console = stderr()
    if console.is_terminal:
        console.print(Text(message, style="dim"), soft_wrap=True)


def print_line(value: object) -> None:
    """A result for a person, as it is."""
    stdout().print(str(value), markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """A result for programs: JSON on stdout."""
    is_utf_8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "").replace("_", "") == "utf8"
    sys.stdout.write(json.dumps(value, ensure_ascii=not is_utf_8, indent=2) + "\n")


def print_pieces(pieces: Iterable[str]) -> str:
    """Show an answer while it is made; Ctrl-C leaves the line whole. Returns the answer."""
    answer = ""
    try:
        for piece in pieces:
            answer += piece
            sys.stdout.write(harmless(piece))
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()
    return answer


def print_lines(texts: Iterable[str]) -> None:
    """Answers that are there already, a line each."""
    for text in texts:
        sys.stdout.write(harmless(" ".join(text.splitlines())) + "\n")


def harmless(text: str) -> str:
    """A model's text without what a terminal would obey: control characters other than line breaks and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """A spinner while the block runs, on a terminal; other libraries are kept quiet from then on."""
    console = stderr()
    with console.status(Text(message, style="dim"), spinner="dots") if console.is_terminal else nullcontext():
        quiet_libraries()
        yield


@contextmanager
def progress(message: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar while the block runs, on a terminal; the block calls what it gets with how many more are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(message, total=total)
        yield lambda done: bar.advance(task, done)


def quiet_libraries() -> None:
    """Keep other libraries' bars and warnings, which are no news to a user, off the terminal."""
    import huggingface_hub.utils
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it where it is installed
    if sys.stderr.isatty():
        huggingface_hub.utils.enable_progress_bars()  # a download of gigabytes is news
    warnings.simplefilter("ignore")


def show_log(level: int = logging.INFO, console: Console | None = None) -> None:
    """Show this package's log on stderr: for commands whose log is what one watches.

    Args:
        level: the least that is shown.
        console: the one that other things are shown on as well, so that lines stay whole; None where there is none.
    """
    handler = _LogHandler(console or stderr())
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(PACKAGE_LOGGER)
    logger.addHandler(handler)
    logger.setLevel(level)


class _LogHandler(logging.Handler):
    """Lines of a log on a console, as they are."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(Text(self.format(record)), soft_wrap=True)


def load_quietly(
    name: str | None, device: str, dtype: str, quantize: str | None = None, **settings: Unpack[LoadSettings]
) -> FlashSloth:
    """Load a model for a command, behind a spinner."""
    with waiting(f"loading {settings.get('adapter') or name or 'the small model'}"):
        from flashsloth.inference.load import load

        return load(name, device=device, dtype=dtype, quantize=quantize, **settings)


def describe(sloth: FlashSloth) -> str:
    """A model in a few words: "nano on cpu in float32"."""
    return "{model} on {device} in {dtype}".format(**model_facts(sloth))


def model_facts(sloth: FlashSloth) -> dict[str, str]:
    """The same for programs."""
    return {"model": sloth.name, "device": str(sloth.device), "dtype": str(sloth.dtype).removeprefix("torch.")}


OURS, USERS, INTERRUPTED = 1, 2, 130
"""Exit codes: our own fault or the machine's, the user's mistake, Ctrl-C (128 + SIGINT)."""
DEBUG_VARIABLE = "FLASHSLOTH_DEBUG"
PACKAGE = "flashsloth"
LISTED = "  "
"""How the lines of a list of mistakes are indented."""
FILE_MISTAKES = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = re.compile(
    r"os error (28|122|27)\b|No space left|File too large|quota exceeded|PytorchStreamWriter failed"
    r"|enforce fail at inline_container|iostream error"
)
"""How libraries say it that do not raise OSError: safetensors, torch."""
_MEMORY_TEXTS = re.compile(r"can't allocate memory|out of memory|Unable to allocate")


class CommandError(FlashSlothError, ValueError):
    """A mistake on the command line that only the command can see."""


def report_failure(error: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    with suppress(OSError):  # stderr may be closed or full as well
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exception(error)
        code, message = judge(error)
        print_error(message)
    return code


def judge(error: Exception) -> tuple[int, str]:
    """(exit code, the line that says what went wrong)."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the parser's; its class moves with versions
        context = getattr(error, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context is not None else ""
        return USERS, f"{one_line(error.format_message()).rstrip('.')}{hint}"
    refusal = machines_refusal(error)
    if refusal is not None and not is_users_mistake(error):  # this package's own words say more
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
    """What to say where the disk is full, stdout closed, or memory exhausted; None where it is something else."""
    reason: BaseException | None = error
    while reason is not None:
        file = getattr(reason, "filename", None)
        place = f"{os.fsdecode(file)}: " if isinstance(file, str | bytes) else ""
        if isinstance(reason, OSError) and reason.errno in FULL:
            return f"{place}{reason.strerror}: free some space and try again"
        if isinstance(reason, OSError) and reason.errno == errno.EBADF:
            return "stdout is closed; expected somewhere to write to, as /dev/null"
        if isinstance(reason, MemoryError) or (isinstance(reason, RuntimeError) and _MEMORY_TEXTS.search(str(reason))):
            return "not enough memory: take a smaller model, picture or batch, or --dtype bfloat16"
        if isinstance(reason, BrokenExecutor):
            return "a process of those that share the work was killed, for its memory perhaps: take fewer --workers"
        if not isinstance(reason, OSError | ValueError) and _FULL_TEXTS.search(str(reason)):
            return "No space left on device: free some space and try again"
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


STDIN, STDOUT, STDERR = 0, 1, 2


def prepare_streams() -> None:
    """Make the three streams usable; to be called before anything is read or written."""
    if sys.stdin is None:
        sys.stdin = _held_open(STDIN, os.O_RDONLY, "r")  # at its end from the start
    if sys.stdout is None:
        sys.stdout = _held_open(STDOUT, os.O_RDONLY, "w")  # writing fails, as it does for every command of a shell
    if sys.stderr is None:
        sys.stderr = _held_open(STDERR, os.O_WRONLY, "w")  # to nowhere
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
    with suppress(OSError, ValueError, AttributeError):  # a stream of a test has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
