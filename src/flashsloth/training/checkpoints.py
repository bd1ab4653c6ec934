"""Checkpoints that are whole or not there.

In: a folder that something is to be saved into. Out: a checkpoint that was written aside, synced to the disk and
renamed, or, where that failed, one line that says why, and everything that was saved before as it was.

    steps/
      checkpoint-400/     whole: `checkpoint.json` lists its files and their sizes
      writing.tmp/        being written, or what a process that was killed left; never loaded, removed by the next save

All processes of a run call these functions together; the first one renames, removes and decides. The folder is one that
all of them see.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from flashsloth.training import ranks

logger = logging.getLogger(__name__)

PREFIX = "checkpoint-"
"""transformers' name of a checkpoint's folder, before its step."""
MANIFEST = "checkpoint.json"
WRITING, REMOVING = "writing.tmp", "removing.tmp"
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError, CheckpointException)
"""What comes out of writing to a disk that is full or gone: torch says RuntimeError, and has one of its own for shares
(which is no Exception); so has safetensors."""
_NAME = re.compile(rf"{PREFIX}(\d+)")
_UNITS = 1e9


class SaveError(ValueError):
    """A checkpoint could not be written, or cannot be gone on from."""


def last_whole(folder: Path) -> Path | None:
    """The checkpoint of the latest step that is whole, the same one on all processes; says which ones are not.

    Args:
        folder: that of a stage's checkpoints; it need not be there.
    """
    return ranks.first_then_all(lambda: _last_whole(folder))


def whole(folder: Path) -> list[Path]:
    """Every whole checkpoint in `folder`, earliest step first."""
    return [path for path in _by_step(folder) if _fault(path) is None]


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was made after."""
    found = _NAME.fullmatch(checkpoint.name)
    if found is None:
        raise SaveError(f"{checkpoint} is no checkpoint's name, expected {PREFIX}<step>")
    return int(found[1])


@contextmanager
def shares_read(checkpoint: Path | None) -> Iterator[None]:
    """Say in a line what shares of a checkpoint could not be read.

    Raises:
        SaveError: instead of torch's error of all processes.
    """
    try:
        yield
    except CheckpointException as error:
        raise SaveError(f"{checkpoint} could not be read: {_one_line(error)}") from error


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: `step`, `processes`, `files`."""
    return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))


@contextmanager
def new_checkpoint(folder: Path, step: int, keep: int | None, *, together: bool = True) -> Iterator[Path]:
    """Write `checkpoint-<step>` into the folder that this gives; afterwards it is whole and stands in `folder`.

    Args:
        folder: that of a stage's checkpoints.
        step: the step it is made after.
        keep: how many whole ones stay, the new one included; None for all.
        together: whether a process that cannot write may still meet the others afterwards. False where they wait for
            each other in the midst of writing, as DeepSpeed's do: it then ends alone, and they find it gone.

    Raises:
        SaveError: on all processes, where any could not write. What was there before is there still.
    """
    name = f"{PREFIX}{step}"

    def finish(aside: Path) -> None:
        made, target = aside / name, folder / name
        manifest = {"step": step, "processes": ranks.count(), "files": _sizes(made)}
        (made / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _sync(made)
        if target.exists():
            _remove(target)
        os.replace(made, target)
        _sync_one(folder)
        aside.rmdir()
        for old in whole(folder)[:-keep] if keep else []:
            _remove(old)

    with _written_aside(folder, f"the checkpoint of step {step}", finish, together):
        yield folder / WRITING


@contextmanager
def new_files(folder: Path, last: str) -> Iterator[Path]:
    """Write files into the folder that this gives; afterwards they stand in `folder`, the one named `last` put last.

    So a `folder` that has it has all of them.

    Raises:
        SaveError: as in :func:`new_checkpoint`.
    """

    def finish(aside: Path) -> None:
        _sync(aside)
        for path in sorted(aside.iterdir(), key=lambda path: path.name == last):
            place = folder / path.name
            if path.name == last:
                _sync_one(folder)
            if place.is_dir():
                _remove(place)
            os.replace(path, place)
        aside.rmdir()
        _sync_one(folder)

    with _written_aside(folder, "the model", finish):
        yield folder / WRITING


@contextmanager
def _written_aside(folder: Path, what: str, finish: Callable[[Path], None], together: bool = True) -> Iterator[None]:
    aside = folder / WRITING

    def begin() -> None:
        for left in (aside, folder / REMOVING):
            shutil.rmtree(left, ignore_errors=True)
        aside.mkdir(parents=True)

    try:
        ranks.first_then_all(begin)
    except OSError as error:
        raise _not_written(what, folder, str(error)) from error
    failure: BaseException | None = None
    try:
        yield
    except WRITE_ERRORS as error:
        if not together:
            raise _not_written(what, folder, _one_line(error)) from error
        failure = error
    problems = [problem for problem in ranks.gathered(failure and _one_line(failure)) if problem]
    if not problems:
        try:
            ranks.first_then_all(lambda: finish(aside))
            return
        except OSError as error:
            failure, problems = error, [_one_line(error)]
    if ranks.is_first():
        shutil.rmtree(aside, ignore_errors=True)
    raise _not_written(what, folder, problems[0]) from failure


def _not_written(what: str, folder: Path, problem: str) -> SaveError:
    try:
        free = f"{shutil.disk_usage(folder).free / _UNITS:.2f} GB are free there"
    except OSError as error:
        free = str(error)
    kept = whole(folder)
    rest = f"the last whole checkpoint is {kept[-1]}" if kept else "no checkpoint was whole before"
    return SaveError(
        f"{what} could not be written into {folder}: {problem} ({free}); {rest}. Make room, then go on with --resume"
    )


def _last_whole(folder: Path) -> Path | None:
    found = None
    for path in _by_step(folder):
        fault = _fault(path)
        if fault is None:
            found = path
        else:
            logger.warning("%s is not whole (%s): not used", path, fault)
    if (folder / WRITING).exists():
        logger.warning("%s was not finished: not used, and removed by the next save", folder / WRITING)
    return found


def _by_step(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(paths, key=step_of)


def _fault(checkpoint: Path) -> str | None:
    """Why a checkpoint is not whole, or None if it is."""
    try:
        files = read_manifest(checkpoint)["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read: {_one_line(error)}"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
    return None


def _sizes(folder: Path) -> dict[str, int]:
    """Every file below `folder` and its bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def _sync(folder: Path) -> None:
    """Have everything below `folder`, and itself, on the disk."""
    for path in [*folder.rglob("*"), folder]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Take a folder away at once: a process that is killed meanwhile leaves no half of it under its name."""
    out_of_the_way = folder.parent / REMOVING
    shutil.rmtree(out_of_the_way, ignore_errors=True)
    os.replace(folder, out_of_the_way)
    shutil.rmtree(out_of_the_way)


def _one_line(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        return "; ".join(f"process {rank}: {failure[0]}" for rank, failure in error.failures.items())
    return " ".join(str(error).split())


__all__ = [
    "MANIFEST",
    "PREFIX",
    "SaveError",
    "last_whole",
    "new_checkpoint",
    "new_files",
    "read_manifest",
    "shares_read",
    "step_of",
    "whole",
]
