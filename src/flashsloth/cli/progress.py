"""How far a command is that takes hours, and how long it will take: on a terminal, and sparsely off one.

In: how many things are done, of how many. Out: a bar, and lines on stderr.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from flashsloth.cli import terminal

ESTIMATED_AFTER = 10, 100, 1000
"""Things done: the first estimate has a model's start in it, later ones less and less of it."""
SAID_EVERY = 30.0
"""Seconds between lines about progress, where no terminal shows it."""


@contextmanager
def told_progress(title: str, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a line with an estimate after some answers, and then now and then.

    Args:
        title: of what is done.
        what: is counted, in the plural.

    Yields:
        What is called after each one, with how many are done and how many there are.
    """
    started = said = time.monotonic()
    advance: Callable[[int], None] | None = None
    is_terminal = terminal.stderr().is_terminal

    def tell(done: int, total: int) -> None:
        nonlocal said, advance
        if is_terminal:
            if advance is None:
                advance = bars.enter_context(terminal.progress(title, total))
            advance(1)
        now = time.monotonic()
        is_due = done in ESTIMATED_AFTER or (advance is None and now - said > SAID_EVERY)
        if is_due and done < total:
            said = now
            rest = duration((now - started) / done * (total - done))
            terminal.print_progress(f"{title}: {done:,} of {total:,} {what} are done, about {rest} to go")

    with ExitStack() as bars:
        yield tell


def duration(seconds: float) -> str:
    """A time in two units at most: "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
