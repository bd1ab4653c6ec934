"""The little text that Git leaves where Git LFS was to put a large file.

In: the beginning of a file, or its path. Out: whether it is one. Pictures, data and weights all ask here.
"""

from __future__ import annotations

import os

SIGNATURE = b"version https://git-lfs"
LFS_POINTER = "a Git LFS pointer, not the file itself (`git lfs pull` fetches that)"
"""What an error says that such a file is."""


def is_lfs_pointer(file: str | os.PathLike[str]) -> bool:
    """Whether a file is a pointer; raises OSError where it cannot be read."""
    with open(file, "rb") as opened:
        return opened.read(len(SIGNATURE)) == SIGNATURE


__all__ = ["LFS_POINTER", "SIGNATURE", "is_lfs_pointer"]
