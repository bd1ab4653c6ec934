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


@contextmanager
def appearing_folder(target: Path) -> Iterator[Path]:
    """A folder to work in, which takes the target's name when all went well and vanishes when not."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists and is not an empty folder: choose another, or remove it first")
    work = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}.partial")
    work.mkdir(parents=True)
    try:
        yield work
        os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


__all__ = ["appearing_folder"]
