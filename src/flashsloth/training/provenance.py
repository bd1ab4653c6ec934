"""What is written down of a run, so that it can be repeated, and so that going on goes on with the same thing.

In: a recipe, and where it runs. Out: files in the run's folder.

    recipe.yaml     everything that the recipe says, defaults and `--set` included: can be trained again as it is
    run.json        versions, the state of the source's repository, a digest of the data, and each start's command line
    history.json    what a run went on with that it did not begin with: field, values, step, time (`resume.py`)

A run that goes on compares both with what it is given now.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flashsloth.files import lock_file, write_whole
from flashsloth.training import distributed
from flashsloth.training.data.json_data import companion
from flashsloth.training.data.records import several_files
from flashsloth.training.recipe import Recipe, RecipeError, StageRun, load_recipe, resolved
from flashsloth.training.resume import (
    HISTORY_FILE,
    Change,
    RecipeChangedError,
    accepted_changes,
    as_written,
    write_history,
)
from flashsloth.training.run_folder import reached
from flashsloth.version import __version__, installed_versions
from flashsloth.yaml_file import write_yaml

logger = logging.getLogger(__name__)

LOCK_MODE = 0o644
RECIPE_FILE, RUN_FILE, LOCK_FILE = "recipe.yaml", "run.json", "run.lock"
PACKAGES = ("torch", "transformers", "accelerate", "peft", "safetensors", "tokenizers", "numpy", "pillow")
KEYS_SHOWN = 6
"""Differing keys that an error names."""
ENDS_BYTES = 1 << 20
LARGE_TEXT, LARGE_ARCHIVE = 1 << 32, 1 << 26
"""Bytes of a file beyond which it is known by its size, its beginning and its end: archives come by the terabyte."""
FILE_KEYS = {
    "json": (".json", LARGE_TEXT),
    "jsonl": (".jsonl", LARGE_TEXT),
    "csv": (".csv", LARGE_TEXT),
    "parquet": (".parquet", LARGE_ARCHIVE),
    "shards": (".tar", LARGE_ARCHIVE),
    "packed": ("index.json", LARGE_TEXT),  # which says how the pack was drawn; every sample has its own digest
}
"""Keys of a source of data that name files -> how those in a folder end, and which are large."""
GIT_SECONDS = 10.0


class RunExistsError(RecipeError):
    """There is a run where one was to be started."""


def write_record(recipe: Recipe, resumed: bool) -> None:
    """Write both files, or compare what is given with what they say and add this start to them.

    Called by all processes together; the first one reads and writes.

    Raises:
        RecipeChangedError: if the run began with something else, and cannot go on with this.
    """
    distributed.first_then_all(lambda: _write_record(recipe, resumed))


def _write_record(recipe: Recipe, resumed: bool) -> None:
    folder = recipe.output
    data = data_digests(recipe)
    start = _start(resumed)
    past: dict[str, Any] = {}
    changes: list[Change] = []
    begun = recipe.stages
    if resumed and (folder / RECIPE_FILE).is_file():
        began = load_recipe(folder / RECIPE_FILE)
        far = reached(began.model_copy(update={"output": folder}))
        changes = accepted_changes(began, recipe, far, start["time"])
        begun = recipe.stages[: far.stage + 1]
    if resumed and (folder / RUN_FILE).is_file():
        past = _read_run(folder / RUN_FILE)
        _check_data(past["data"], data, {str(file) for file in data_files(begun)})
        _warn_of_differences(past["starts"][-1], start)
    folder.mkdir(parents=True, exist_ok=True)
    if not resumed:
        (folder / HISTORY_FILE).unlink(missing_ok=True)  # of a run that came to no checkpoint
    if changes:
        write_history(folder, changes)
    write_whole(folder / RECIPE_FILE, write_yaml(resolved(recipe)))
    start["changes"] = [asdict(change) for change in changes]
    starts = [*past.get("starts", []), start]
    write_whole(folder / RUN_FILE, json.dumps({"data": data, "starts": starts}, indent=1) + "\n")


def _read_run(file: Path) -> dict[str, Any]:
    """What `run.json` says: of the data, and of at least one start."""
    with as_written(file):
        past = json.loads(file.read_text(encoding="utf-8"))
        data, last = past["data"], past["starts"][-1]
        _ = (data.get, last["versions"].get, last["processes"], _commit(last["source"]))
        return dict(past)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a run's folder, as long as this one's first process lives.

    Raises:
        RunExistsError: on all processes, if another run is in it.
    """
    descriptor = distributed.first_then_all(lambda: _lock(folder))
    try:
        yield
    finally:
        if distributed.is_first():
            os.close(descriptor)


def _lock(folder: Path) -> int:
    """An open file of this process alone."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, LOCK_MODE)
    try:
        # a lock of the process: data workers, which outlive a killed run by seconds, do not hold it
        lock_file(descriptor, wait=False)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunExistsError(
            f"another process trains into {folder} now: wait for it, or train into another folder with --set output=..."
        ) from error
    return descriptor


def data_digests(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Each file of data that the recipe names: its bytes and their SHA-256."""
    files = data_files(recipe.stages)
    return {str(file): {"bytes": file.stat().st_size, "sha256": _digest(file, limit)} for file, limit in files.items()}


def data_files(stages: list[StageRun]) -> dict[Path, int]:
    """Each file of data that some stages name, and the bytes beyond which it is known by its ends."""
    files: dict[Path, int] = {}
    for source in (source for stage in stages for source in (*stage.data, *stage.eval_data)):
        for key, (ending, limit) in FILE_KEYS.items():
            named = getattr(source, key)
            for file in [] if named is None else several_files(named, ending):
                files.setdefault(file, limit)
                beside = companion(file) if key == "json" else None
                if beside is not None:
                    files.setdefault(beside, limit)
    return files


def _digest(file: Path, limit: int) -> str:
    """SHA-256 of a file, or of its ends where it has more bytes than `limit`."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= limit:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256(stream.read(ENDS_BYTES))
        stream.seek(-ENDS_BYTES, os.SEEK_END)
        digest.update(stream.read())
        return f"ends:{digest.hexdigest()}"


def _check_data(began: dict[str, Any], now: dict[str, Any], begun: set[str]) -> None:
    """Compare what there was and is; files that stages to come have brought, and none of those `begun`, are new."""
    named = {*began, *(name for name in now if name in begun)}
    changed = sorted(name for name in named if began.get(name) != now.get(name))
    if changed:
        raise RecipeChangedError(
            f"data changed since the run began: {', '.join(changed[:KEYS_SHOWN])}; the order of samples would not be "
            f"what it was. Put it back, or train into another folder with --set output=..."
        )


def _warn_of_differences(before: dict[str, Any], now: dict[str, Any]) -> None:
    changes = [("processes", before["processes"], now["processes"])]
    versions = {**before["versions"], **now["versions"]}
    changes += [(name, before["versions"].get(name), now["versions"].get(name)) for name in versions]
    changes.append(("source", _commit(before["source"]), _commit(now["source"])))
    for what, was, is_now in changes:
        if was != is_now:
            logger.warning("%s: was %s, is %s; the run goes on, but perhaps not bit for bit", what, was, is_now)


def _commit(source: dict[str, Any] | None) -> str | None:
    return None if source is None else f"{source['commit']}{' with changes' if source['dirty'] else ''}"


def _start(resumed: bool) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "resumed": resumed,
        "processes": distributed.count(),
        "versions": {"flashsloth": __version__, "python": platform.python_version(), **installed_versions(PACKAGES)},
        "source": _git_state(Path(__file__).parent),
        "machine": _machine(),
    }


def _machine() -> dict[str, Any]:
    import torch

    from flashsloth.planning.machine import cpu_name, usable_cores

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"processor": cpu_name(), "cores": usable_cores(), "accelerators": names}


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, and what is not committed, of the repository that holds the source; None if it is installed."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or _git(folder, "ls-files", "--error-unmatch", __file__) is None:
        return None
    changed = (_git(folder, "status", "--porcelain") or "").splitlines()
    return {"commit": commit, "dirty": bool(changed), "uncommitted": [line.strip() for line in changed]}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; without locks, which a run that is killed meanwhile, or has no disk, would leave behind."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
