"""A folder that appears under its name only when it is whole.

In: the name. Out: a folder beside it to write in, renamed at the end, or removed if anything went wrong.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flashsloth.model.checkpoint.weight_files import CheckpointError

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
    work = _beside(target, "partial")
    work.mkdir(parents=True)
    old = _beside(target, "old")
    try:
        yield work
        if taken:
            os.replace(target, old)
        try:
            os.replace(work, target)
        except OSError:
            if taken:
                os.replace(old, target)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, what: str) -> Path:
    """A name in the target's own folder that nobody else has."""
    return target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}.{what}")


__all__ = ["appearing_folder"]
