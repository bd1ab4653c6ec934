"""Pictures as people name them at a prompt: typed, quoted, or dragged into a terminal.

In: the rest of a line. Out: paths for :func:`flashsloth.media.open_picture`.

A terminal quotes what is dragged into it in the shell's way ('my photo.png', my\\ photo.png) or gives a file:// URL;
a name that is typed may hold quotes and backslashes of its own (it's.png). So a name that is there is taken as it is.
"""

from __future__ import annotations

import os
import shlex
from urllib.parse import unquote, urlsplit

FILE_SCHEME = "file://"


def paths_of(line: str) -> list[str]:
    """The paths that a line names: one as it stands, or several in the shell's way."""
    whole = line.strip()
    if not whole or os.path.exists(path_of(whole)):
        return [path_of(whole)]
    try:
        words = [path_of(word) for word in shlex.split(whole)]
    except ValueError:  # a quote without its fellow: it belongs to the name
        words = []
    # Where none is there, an error is to show what was typed.
    return words if any(map(_is_source, words)) or len(words) == 1 else [path_of(whole)]


def path_of(name: str) -> str:
    """A path of `~/photo.png` or `file:///home/me/my%20photo.png`."""
    if name[: len(FILE_SCHEME)].lower() == FILE_SCHEME:
        parts = urlsplit(name)
        if parts.netloc in ("", "localhost"):
            return unquote(parts.path, errors="surrogateescape")
    return os.path.expanduser(name) if name.startswith("~") else name


def _is_source(word: str) -> bool:
    return os.path.exists(word) or word[:5].lower() == "data:"


__all__ = ["path_of", "paths_of"]
