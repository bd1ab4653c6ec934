"""A base by its tensors: names, types, shapes and bytes, whatever the layout and the files they lie in.

In: a checkpoint's folder, ours or published. Out: a text such as `sha256:9f2c...`. The same weights in the other
layout, or cut into other files, have the same digest; one changed bit, or another precision, has another.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flashsloth.model.checkpoint import by_our_names, is_published
from flashsloth.model.checkpoint.weight_files import StoredTensor, stored_tensors

ALGORITHM = "sha256"
_CHUNK_BYTES = 1 << 22


def base_digest(folder: Path) -> str:
    """The digest of a checkpoint's tensors; reads all of them once.

    Raises:
        CheckpointError: if the weights are not whole.
    """
    named = by_our_names(stored_tensors(folder), published=is_published(folder))
    total = hashlib.new(ALGORITHM)
    for name in sorted(named):
        tensor = named[name]
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)} {_content(tensor)}\n".encode())
    return f"{ALGORITHM}:{total.hexdigest()}"


def _content(tensor: StoredTensor) -> str:
    """The digest of one tensor's bytes."""
    content = hashlib.new(ALGORITHM)
    left = tensor.nbytes
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                break  # read_header has seen that the file is long enough: it shrank since, and the digest tells
            content.update(chunk)
            left -= len(chunk)
    return content.hexdigest()


__all__ = ["base_digest"]
