"""Checkpoints that are whole or not there.

In: a folder that something is to be saved into. Out: a checkpoint that was written aside, synced to the disk and
renamed, or, where that failed, one line that says why, and everything that was saved before as it was.

    steps/
      checkpoint-400/     whole: `checkpoint.json` lists its files, their sizes and digests
      writing.tmp/        being written, or what a process that was killed left; never loaded, removed by the next save

    {"step": 400, "processes": 2, "files": {"model.safetensors": {"bytes": 90112, "sha256": "9f2c..."}, ...}}

All processes of a run call these functions together; the first one renames, removes and decides, and each reads its
share of the files. The folder is one that all of them see.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from flashsloth.errors import FlashSlothError
from flashsloth.training import distributed

logger = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
_READERS = 4
"""Files that a process digests at a time: hashing holds no lock of Python's."""
_ALGORITHM = "sha256"
PREFIX = "checkpoint-"
"""transformers' name of a checkpoint's folder, before its step."""
WRITING, REMOVING = "writing.tmp", "removing.tmp"
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError, CheckpointException)
"""What comes out of writing to a disk that is full or gone: torch says RuntimeError, and has one of its own for shares
(which is no Exception); so has safetensors."""
_NAME = re.compile(rf"{PREFIX}(\d+)")
_TORCH_CUT = "inline_container"
"""In torch's words for a file of which not all was written."""
_UNITS = 1e9


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder says of itself: `files`, and of a checkpoint `step` and `processes`."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert isinstance(manifest, dict)
    return manifest


def write_manifest(folder: Path, files: dict[str, Any], **facts: int) -> None:
    """Write it, with what :func:`digested` found."""
    (folder / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=1), encoding="utf-8")


def digested(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file below `folder` but the manifest: its bytes and SHA-256. All processes together.

    Raises:
        OSError: on all of them, if one cannot read its share.
    """

    def listed() -> list[str]:
        paths = (path for path in folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(folder).as_posix() for path in paths)

    names = [name for name in distributed.first_then_all(listed) if name != MANIFEST]
    return _shared_out(folder, names)


def missing_or_cut(folder: Path) -> str | None:
    """Why a folder is not whole, by its files' sizes; None if it is."""
    try:
        files = read_manifest(folder)["files"]
        sizes = {name: _bytes(facts) for name, facts in files.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        return f"{MANIFEST} cannot be read: {' '.join(str(error).split())}"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
    return None


def changed(folder: Path) -> str | None:
    """Why a folder is not as it was written, by sizes and by digests; None if it is. All processes together."""
    fault = distributed.first_then_all(lambda: missing_or_cut(folder))
    if fault is not None:
        return fault
    files = distributed.first_then_all(lambda: read_manifest(folder))["files"]
    known = {name: facts[_ALGORITHM] for name, facts in files.items() if isinstance(facts, dict)}
    try:
        found = _shared_out(folder, sorted(known))
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    different = sorted(name for name, digest in known.items() if found[name][_ALGORITHM] != digest)
    return f"{different[0]} is not what was written: its bytes have changed since" if different else None


def _bytes(facts: Any) -> int:
    """A file's size; manifests of older versions hold nothing else."""
    return int(facts["bytes"] if isinstance(facts, dict) else facts)


def _shared_out(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """The facts of these files; each process reads some."""
    mine: dict[str, dict[str, Any]] = {}
    failure: OSError | None = None
    try:
        with ThreadPoolExecutor(_READERS) as readers:
            own = names[distributed.rank() :: distributed.count()]
            mine = dict(zip(own, readers.map(lambda name: _facts(folder / name), own), strict=True))
    except OSError as error:
        failure = error
    everyones = distributed.all_gather((mine, failure))
    for _, theirs in everyones:
        if theirs is not None:
            raise theirs
    return {name: facts for found, _ in everyones for name, facts in found.items()}


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, _ALGORITHM).hexdigest()
        return {"bytes": stream.tell(), _ALGORITHM: digest}


class SaveError(FlashSlothError, ValueError):
    """A checkpoint could not be written, or cannot be gone on from."""


class WriteError(SaveError):
    """A checkpoint could not be written."""

    exit_code = 1


def last_whole(folder: Path) -> Path | None:
    """The checkpoint of the latest step that is as it was written, to the last bit; says which later ones are not.

    All processes together; it is the same one on all of them.

    Args:
        folder: that of a stage's checkpoints; it need not be there.

    Raises:
        SaveError: if there are some, and none is.
    """
    if distributed.is_first() and (folder / WRITING).exists():
        logger.warning("%s was not finished: not used, and removed by the next save", folder / WRITING)
    faults = []
    for path in distributed.first_then_all(lambda: _by_step(folder)[::-1]):
        fault = changed(path)
        if fault is None:
            return path
        faults.append(f"{path} is not whole ({fault})")
        logger.warning("%s: not used", faults[-1])
    if faults:
        raise SaveError(
            f"{faults[0]}, and no other checkpoint there is whole either: put its files back, or remove {folder} to "
            f"begin the stage again"
        )
    return None


def whole(folder: Path) -> list[Path]:
    """Every checkpoint in `folder` whose files are all there, earliest step first."""
    return [path for path in _by_step(folder) if missing_or_cut(path) is None]


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was made after."""
    found = _NAME.fullmatch(checkpoint.name)
    if found is None:
        raise SaveError(f"{checkpoint} is not a checkpoint's name, expected {PREFIX}<step>")
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


@contextmanager
def new_checkpoint(
    folder: Path, step: int, keep: int | None, *, spared: int | None = None, together: bool = True
) -> Iterator[Path]:
    """Write `checkpoint-<step>` into the folder that this gives; afterwards it is whole and stands in `folder`.

    Args:
        folder: that of a stage's checkpoints.
        step: the step it is made after.
        keep: how many whole ones stay, the new one included; None for all.
        spared: the step of one that stays beside them.
        together: whether a process that cannot write may still meet the others afterwards. False where they wait for
            each other in the midst of writing, as DeepSpeed's do: it then ends alone, and they find it gone.

    Raises:
        SaveError: on all processes, where any could not write. What was there before is there still.
    """
    name = f"{PREFIX}{step}"

    def finish(aside: Path, files: dict[str, Any]) -> None:
        made, target = aside / name, folder / name
        in_it = {path.removeprefix(f"{name}/"): facts for path, facts in files.items()}
        write_manifest(made, in_it, step=step, processes=distributed.count())
        _sync(made)
        if target.exists():
            _remove(target)
        os.replace(made, target)
        _sync_one(folder)
        aside.rmdir()
        for old in whole(folder)[:-keep] if keep else []:
            if step_of(old) != spared:
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

    def finish(aside: Path, files: dict[str, Any]) -> None:
        write_manifest(aside, files)
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
def _written_aside(
    folder: Path, what: str, finish: Callable[[Path, dict[str, Any]], None], together: bool = True
) -> Iterator[None]:
    aside = folder / WRITING

    def begin() -> None:
        for left in (aside, folder / REMOVING):
            shutil.rmtree(left, ignore_errors=True)
        aside.mkdir(parents=True)

    try:
        distributed.first_then_all(begin)
    except OSError as error:
        raise _not_written(what, folder, str(error)) from error
    failure: BaseException | None = None
    try:
        yield
    except (Exception, CheckpointException) as error:
        if not isinstance(error, WRITE_ERRORS) and type(error) is not Exception:  # tokenizers' own
            raise
        if not together:
            raise _not_written(what, folder, _one_line(error)) from error
        failure = error
    problems = [problem for problem in distributed.all_gather(failure and _one_line(failure)) if problem]
    if not problems:
        try:
            files = digested(aside)
            distributed.first_then_all(lambda: finish(aside, files))
            return
        except OSError as error:
            failure, problems = error, [_one_line(error)]
    if distributed.is_first():
        shutil.rmtree(aside, ignore_errors=True)
    raise _not_written(what, folder, problems[0]) from failure


def _not_written(what: str, folder: Path, problem: str) -> WriteError:
    try:
        free = f"{shutil.disk_usage(folder).free / _UNITS:.2f} GB are free there"
    except OSError as error:
        free = str(error)
    kept = whole(folder)
    rest = f"the last whole checkpoint is {kept[-1]}" if kept else "no checkpoint was whole before"
    return WriteError(
        f"{what} could not be written into {folder}: {problem} ({free}); {rest}. Make room, then go on with --resume"
    )


def _by_step(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(paths, key=step_of)


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
    said = " ".join(str(error).split())
    return f"a file could not be written whole, as on a full disk ({said})" if _TORCH_CUT in said else said
