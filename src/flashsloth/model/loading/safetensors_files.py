"""A folder's safetensors files, by their headers: what is stored where, in which type and shape.

In: a folder with `model.safetensors`, or with shards and their index. Out: a :class:`StoredTensor` for every tensor. No
weight is read until somebody asks for it, so this takes no time, whatever the size.

A safetensors file is eight bytes (the header's length, little-endian), the header (JSON: name -> type, shape and where
the bytes stand after the header), and the bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from flashsloth.errors import FlashSlothError
from flashsloth.files import LFS_POINTER
from flashsloth.files import SIGNATURE as LFS_SIGNATURE

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LENGTH = struct.Struct("<Q")
_AGAIN = "copy or download it again"
TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""safetensors' name of a floating-point type -> torch's."""


class CheckpointError(FlashSlothError, ValueError):
    """A checkpoint that cannot be used as it is: what is wrong, in which file, and what was expected."""


class StoredTensor(NamedTuple):
    """One tensor in a file: `dtype` as safetensors names it (F16, BF16, F32, ...), bytes from `start` in `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    def read_bytes(self) -> bytes:
        """The raw bytes."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.nbytes)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder, in its files' order.

    Raises:
        CheckpointError: if there are no weights, a shard is missing or cut short, or the index says otherwise than the
            shards do.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        for tensor in read_header(file):
            if tensor.name in tensors:
                raise CheckpointError(f"{file}: {tensor.name} is also in {tensors[tensor.name].file.name}")
            tensors[tensor.name] = tensor
    index = folder / INDEX
    if index.is_file():
        lost = sorted(set(weight_map(index)) - set(tensors))
        if lost:
            raise CheckpointError(f"{index} lists {_some(lost)}, which no shard holds: download the folder again")
    return tensors


def stored_dtype(tensors: Iterable[StoredTensor]) -> str | None:
    """The floating-point type all tensors have, as torch names it; None where they have several, or another."""
    dtypes = {tensor.dtype for tensor in tensors}
    return TORCH_DTYPES.get(next(iter(dtypes))) if len(dtypes) == 1 else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder.

    Raises:
        CheckpointError: if there are none, or a shard of the index is missing.
    """
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(weight_map(index).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(f"{folder}: shards {_some(missing)} are missing, {INDEX} names {len(names)}")
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    hint = ""
    if any(folder.glob("*.bin")):
        hint = "; it has .bin weights: turn them into safetensors with `flashsloth convert`"
    raise CheckpointError(f"{folder}: expected {WEIGHTS} or {INDEX}, found neither{hint}")


def read_header(file: Path) -> list[StoredTensor]:
    """What a safetensors file holds, in the order of its bytes; the safetensors library holds it against the file.

    Raises:
        CheckpointError: if the file is no safetensors file, or has fewer or more bytes than its header says.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(max(_LENGTH.size, len(LFS_SIGNATURE)))
            if start.startswith(LFS_SIGNATURE):
                raise CheckpointError(f"{file} is {LFS_POINTER}")
            with safe_open(file, framework="numpy"):
                (length,) = _LENGTH.unpack(start[: _LENGTH.size])
            stream.seek(_LENGTH.size)
            header = json.loads(stream.read(length))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        said = str(error).rpartition("deserializing header: ")[2]
        found = f"{file.stat().st_size:,} bytes: {said}"
        raise CheckpointError(f"{file}: not a safetensors file, or cut short ({found}): {_AGAIN}") from error
    header.pop("__metadata__", None)
    base = _LENGTH.size + length
    tensors = [
        StoredTensor(name, file, entry["dtype"], tuple(entry["shape"]), base + first, last - first)
        for name, entry in header.items()
        for first, last in [entry["data_offsets"]]
    ]
    return sorted(tensors, key=lambda tensor: tensor.start)


def load_tensors(tensors: Iterable[StoredTensor]) -> dict[str, torch.Tensor]:
    """The tensors themselves, on the CPU, mapped from their files and read when touched."""
    by_file: dict[Path, list[str]] = {}
    for tensor in tensors:
        by_file.setdefault(tensor.file, []).append(tensor.name)
    loaded = {}
    for file, names in by_file.items():
        with safe_open(file, framework="pt") as stream:
            for name in names:
                loaded[name] = stream.get_tensor(name)
    return loaded


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: if the file is missing or holds something else.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror or error})") from error
    if content.startswith(LFS_SIGNATURE):
        raise CheckpointError(f"{file} is {LFS_POINTER}")
    if not content.strip():
        raise CheckpointError(f"{file} is empty, expected a JSON object: {_AGAIN}")
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not JSON: byte {error.start} is not UTF-8: {_AGAIN}") from error
    except RecursionError as error:
        raise CheckpointError(f"{file} is JSON nested too deeply: {_AGAIN}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} holds {_kind(value)}, expected a JSON object: {_AGAIN}")
    return value


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file, as an index of shards says.

    Raises:
        CheckpointError: if it does not say that, or names a file outside its folder.
    """
    content = read_json(index)
    found = content.get("weight_map")
    if not isinstance(content.get("metadata", {}), dict):
        raise CheckpointError(f"{index}: metadata is {_kind(content['metadata'])}, expected an object: {_AGAIN}")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) and name for name in found.values()):
        raise CheckpointError(f"{index} has no weight_map of tensors to files: {_AGAIN}")
    outside = sorted({name for name in found.values() if Path(name).name != name})
    if outside:
        raise CheckpointError(f"{index} names files outside its folder: {_some(outside)}")
    return found


def _kind(value: Any) -> str:
    """What JSON calls a value's type."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _some(names: list[str], most: int = 5) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
