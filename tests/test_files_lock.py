"""A lock keeps other processes out, and ends with the one that holds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flashsloth.files import lock_file

HOLDER = """
import sys
from flashsloth.files import lock_file
file = open(sys.argv[1], "a+b")
lock_file(file.fileno(), wait=False)
print("locked", flush=True)
sys.stdin.read()
"""


def test_another_process_is_kept_out_until_this_one_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder,
        open(path, "a+b") as file,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError):
            lock_file(file.fileno(), wait=False)
        holder.kill()
        lock_file(file.fileno(), wait=True)  # given back by the kernel
