"""What a person at a terminal sees beside the answer: errors, waiting, progress. All of it goes to stderr.

In: messages. Out: coloured text on a terminal; off one, errors as plain lines and nothing else.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from flashsloth.inference import FlashSloth

PACKAGE_LOGGER = "flashsloth"


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
    """One line that is told to programs' logs as well: what came is not what was asked for."""
    stderr().print(Text("warning: ", style="bold yellow") + Text(message), soft_wrap=True)


def print_note(message: str) -> None:
    """A quiet line, for a person only."""
    console = stderr()
    if console.is_terminal:
        console.print(Text(message, style="dim"), soft_wrap=True)


def print_json(value: Any) -> None:
    """A result for programs: JSON on stdout."""
    is_utf_8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "").replace("_", "") == "utf8"
    sys.stdout.write(json.dumps(value, ensure_ascii=not is_utf_8, indent=2) + "\n")


def collect(pieces: Iterable[str]) -> str:
    """The whole answer, silently."""
    return "".join(pieces)


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
    """A spinner while the block runs, on a terminal."""
    console = stderr()
    if not console.is_terminal:
        yield
        return
    with console.status(Text(message, style="dim"), spinner="dots"):
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


def load_quietly(name: str | None, device: str, dtype: str, quantize: str | None = None) -> FlashSloth:
    """Load a model for a command, behind a spinner."""
    with waiting(f"loading {name or 'the small model'}"):
        from flashsloth.inference import load

        quiet_libraries()
        return load(name, device=device, dtype=dtype, quantize=quantize)
