"""What a checkpoint's folder says of itself: its files, their sizes and digests; and whether that is still so.

In: a folder. Out: `checkpoint.json` in it; later, the first file that is not as it was written.

    {"step": 400, "processes": 2, "files": {"model.safetensors": {"bytes": 90112, "sha256": "9f2c..."}, ...}}

All files of a folder are read by all processes of a run together, each taking its share of them.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flashsloth.training import ranks

MANIFEST = "checkpoint.json"
_READERS = 4
"""Files that a process digests at a time: hashing holds no lock of Python's."""
_ALGORITHM = "sha256"


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

    names = [name for name in ranks.first_then_all(listed) if name != MANIFEST]
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
    fault = ranks.first_then_all(lambda: missing_or_cut(folder))
    if fault is not None:
        return fault
    files = ranks.first_then_all(lambda: read_manifest(folder))["files"]
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
            own = names[ranks.rank() :: ranks.count()]
            mine = dict(zip(own, readers.map(lambda name: _facts(folder / name), own), strict=True))
    except OSError as error:
        failure = error
    everyones = ranks.gathered((mine, failure))
    for _, theirs in everyones:
        if theirs is not None:
            raise theirs
    return {name: facts for found, _ in everyones for name, facts in found.items()}


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, _ALGORITHM).hexdigest()
        return {"bytes": stream.tell(), _ALGORITHM: digest}


__all__ = ["MANIFEST", "changed", "digested", "missing_or_cut", "read_manifest", "write_manifest"]
