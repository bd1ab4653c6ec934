"""The files that a recipe means by one text: a file, a folder, a pattern with `*`, or numbers as in `{000..099}`.

A folder that holds a data set's test split beside the one for training is refused: both would be learned from.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from flashsloth.training.data.foreign_file import refuse_arrow
from flashsloth.training.data.sample import DataError

SPLITS = ("train", "test", "validation", "val", "dev")
MOST_IN_A_RANGE = 1_000_000
_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?![A-Za-z])")
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
        return _in_folder(Path(text), ending)
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


def _in_folder(folder: Path, ending: str) -> list[Path]:
    """A folder's files; where it has none itself, those of the folders in it, hidden ones left out.

    Raises:
        DataError: if there are none, or they are of more than one split.
    """
    refuse_arrow(folder)
    found = [
        file
        for file in sorted(folder.rglob(f"*{ending}"))
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    files = [file for file in found if file.parent == folder] or found
    if not files:
        raise DataError(f"no data in {folder}: expected files *{ending}")
    splits = sorted({split for file in files if (split := _split_of(file.relative_to(folder))) is not None})
    if len(splits) > 1:
        raise DataError(f"{folder} holds the splits {', '.join(splits)}: name the files of one of them")
    return files


def _split_of(file: Path) -> str | None:
    """The split that a file's name, or its folder's, begins with."""
    for part in file.parts:
        if match := _SPLIT.match(part):
            return match.group(1)
    return None


def _numbered(text: str) -> list[str]:
    """Every name that a range of numbers stands for; with leading zeros where the range has them."""
    match = _RANGE.search(text)
    if match is None:
        return [text]
    first, last = match.groups()
    if int(first) > int(last):
        raise DataError(f"{text}: the range {match.group()} goes down, expected the smaller number first")
    if int(last) - int(first) >= MOST_IN_A_RANGE:
        raise DataError(f"{text}: the range {match.group()} has more than {MOST_IN_A_RANGE:,} numbers")
    width = len(first)
    names = (f"{text[: match.start()]}{n:0{width}d}{text[match.end() :]}" for n in range(int(first), int(last) + 1))
    return [name for partial in names for name in _numbered(partial)]


__all__ = ["several_files"]
