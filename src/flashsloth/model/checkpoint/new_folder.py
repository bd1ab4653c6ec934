"""A folder that appears under its name only when it is whole.

In: the name. Out: a folder beside it to write in, renamed at the end, or removed if anything went wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flashsloth.model.checkpoint.weight_files import CheckpointError
from flashsloth.whole_file import whole_folder

_CONFIG = "config.json"


@contextmanager
def appearing_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to work in, which takes the target's name when all went well and vanishes when not.

    Args:
        target: a folder that does not exist yet, or is empty.
        replace: whether a checkpoint that is there makes way, at the very end.

    Raises:
        CheckpointError: if the target is taken.
    """
    taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if taken and not replace:
        raise CheckpointError(f"{target} exists and is not an empty folder: choose another, or remove it first")
    if taken and not (target / _CONFIG).is_file():
        raise CheckpointError(f"{target} exists and is no checkpoint, so it is not replaced: choose another folder")
    with whole_folder(target) as work:
        yield work


__all__ = ["appearing_folder"]
