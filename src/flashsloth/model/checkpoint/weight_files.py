"""A folder's safetensors files, by their headers: what is stored where, in which type and shape.

In: a folder with `model.safetensors`, or with shards and their index. Out: a :class:`StoredTensor` for every tensor. No
weight is read until somebody asks for it, so this takes no time, whatever the size.

A safetensors file is eight bytes (the header's length, little-endian), the header (JSON: name -> type, shape and where
the bytes stand after the header), and the bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
METADATA_KEY = "__metadata__"
METADATA = {"format": "pt"}
_LENGTH = struct.Struct("<Q")
_HEADER_ALIGNMENT = 8
_MAX_HEADER_BYTES = 100_000_000
"""What the safetensors library itself allows."""
_CHUNK_BYTES = 1 << 24


TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""safetensors' name of a floating-point type -> torch's."""


class CheckpointError(ValueError):
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
        count = 1
        for side in self.shape:
            count *= side
        return count

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
        lost = sorted(set(read_json(index)["weight_map"]) - set(tensors))
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
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        if any(Path(name).name != name for name in names):
            raise CheckpointError(f"{index} names files outside its folder: {_some(names)}")
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
    """What a safetensors file holds, in the order of its bytes.

    Raises:
        CheckpointError: if the file is no safetensors file, or is cut short.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else _MAX_HEADER_BYTES + 1
        if length > min(_MAX_HEADER_BYTES, size):
            raise CheckpointError(f"{file}: not a safetensors file, or cut short ({size} bytes)")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise CheckpointError(f"{file}: its safetensors header is not JSON ({error})") from error
    base = _LENGTH.size + length
    tensors = []
    for name, entry in header.items():
        if name != METADATA_KEY:
            start, end = entry["data_offsets"]
            tensors.append(StoredTensor(name, file, entry["dtype"], tuple(entry["shape"]), base + start, end - start))
    tensors.sort(key=lambda tensor: tensor.start)
    expected = max((tensor.start + tensor.nbytes for tensor in tensors), default=base)
    if size < expected:
        raise CheckpointError(f"{file}: cut short, {size} bytes of {expected}: download it again")
    return tensors


def load_tensors(tensors: Iterable[StoredTensor]) -> dict[str, torch.Tensor]:
    """The tensors themselves, on the CPU, mapped from their files and read when touched."""
    from safetensors import safe_open

    by_file: dict[Path, list[str]] = {}
    for tensor in tensors:
        by_file.setdefault(tensor.file, []).append(tensor.name)
    loaded = {}
    for file, names in by_file.items():
        with safe_open(file, framework="pt") as stream:
            for name in names:
                loaded[name] = stream.get_tensor(name)
    return loaded


def write_weights(file: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write a safetensors file: new name -> a tensor of another file, its bytes copied a piece at a time."""
    # Wide types first, then by name, as the safetensors library does: every tensor starts at a multiple of its width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].nbytes // max(item[1].size, 1), item[0]))
    header: dict[str, Any] = {METADATA_KEY: METADATA}
    place = 0
    for name, tensor in ordered:
        end = place + tensor.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    with file.open("wb") as target:
        target.write(_LENGTH.pack(len(text)))
        target.write(text)
        for _, tensor in ordered:
            with tensor.file.open("rb") as source:
                source.seek(tensor.start)
                left = tensor.nbytes
                while left:
                    chunk = source.read(min(left, _CHUNK_BYTES))
                    if not chunk:
                        raise CheckpointError(f"{tensor.file}: ended {left} bytes before {tensor.name} did")
                    target.write(chunk)
                    left -= len(chunk)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: if the file is missing or holds something else.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} holds a {type(value).__name__}, expected an object")
    return value


def _some(names: list[str], most: int = 5) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


__all__ = [
    "INDEX",
    "TORCH_DTYPES",
    "WEIGHTS",
    "CheckpointError",
    "StoredTensor",
    "load_tensors",
    "read_header",
    "read_json",
    "stored_dtype",
    "stored_tensors",
    "weight_files",
    "write_weights",
]
