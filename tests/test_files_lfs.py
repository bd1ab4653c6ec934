"""Git LFS pointers, told from files."""

from __future__ import annotations

from pathlib import Path

from flashsloth.files import is_lfs_pointer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def test_a_pointer_is_told_from_a_file(tmp_path: Path) -> None:
    for name, data, expected in (("a", POINTER, True), ("b", b"version 1", False), ("c", b"", False)):
        (tmp_path / name).write_bytes(data)
        assert is_lfs_pointer(tmp_path / name) is expected
