"""Keeps transformers from drawing its bar, "Loading weights", on the terminal of whoever loads a model from Python.

In: a block that loads. Out: nothing of transformers' own settings is changed. Its hook for bars is borrowed while any
thread is inside, makes bars that draw nothing in those threads, and leaves all others to what was set before.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils.logging import EmptyTqdm, set_tqdm_hook

_lock = threading.Lock()
_inside: list[int] = []  # threads, each as often as it has entered
_hook_before: Callable[..., Any] | None = None


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """A block in which this thread draws none of transformers' bars."""
    global _hook_before
    here = threading.get_ident()
    with _lock:
        if not _inside:
            _hook_before = set_tqdm_hook(_hook)
        _inside.append(here)
    try:
        yield
    finally:
        with _lock:
            _inside.remove(here)
            if not _inside and (current := set_tqdm_hook(_hook_before)) is not _hook:
                set_tqdm_hook(current)  # someone set another one meanwhile: it stays


def _hook(factory: Callable[..., Any], args: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    if threading.get_ident() in _inside:
        return EmptyTqdm(*args, **settings)
    return factory(*args, **settings) if _hook_before is None else _hook_before(factory, args, settings)
