"""The files that a recipe means by one text: a file, a folder, a pattern with `*`, or numbers as in `{000..099}`."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from flashsloth.training.data.sample import DataError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WILD = re.compile(r"[*?\[]")


def several_files(text: str, ending: str) -> list[Path]:
    """The files, in order.

    Args:
        text: as in the recipe.
        ending: what a folder's files must end with.

    Raises:
        DataError: if there are none, or one that is named is not there.
    """
    if Path(text).is_dir():
        files = sorted(Path(text).glob(f"*{ending}"))
        if not files:
            raise DataError(f"no data in {text}: expected files *{ending}")
        return files
    files = []
    for name in _numbered(text):
        if _WILD.search(name) and not Path(name).is_file():
            files += [Path(found) for found in sorted(glob.glob(name))]
        else:
            files.append(Path(name))
    if not files:
        raise DataError(f"no data at {text}: no file is called like that")
    for file in files:
        if not file.is_file():
            raise DataError(f"no data at {file}: no such file")
    return files


def _numbered(text: str) -> list[str]:
    """Every name that a range of numbers stands for; with leading zeros where the range has them."""
    match = _RANGE.search(text)
    if match is None:
        return [text]
    first, last = match.groups()
    if int(first) > int(last):
        raise DataError(f"{text}: the range {match.group()} goes down, expected the smaller number first")
    width = len(first)
    names = (f"{text[: match.start()]}{n:0{width}d}{text[match.end() :]}" for n in range(int(first), int(last) + 1))
    return [name for partial in names for name in _numbered(partial)]


__all__ = ["several_files"]
