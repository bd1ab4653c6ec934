"""Python with everything imported: processes forked from a server that has done it once, in place of a start each.

For a test that needs a process of its own (its memory, its signals, its end) but not the start of one.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

PRELOADED = "tests.preloaded"
"""Found where tests run in the repository's root; elsewhere each process imports what it needs itself."""
SECONDS = 300.0
"""No process takes as long, unless it hangs."""

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([PRELOADED])


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code as `python -c` does, to its end.

    Raises:
        AssertionError: if it hangs.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = processes.Process(target=_run, args=(code, arguments, [str(file) for file in files]))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"it hangs: {arguments}")
        said = [file.read_text(encoding="utf-8") for file in files]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(list(arguments), process.exitcode, *said)


def _run(code: str, arguments: tuple[str, ...], streams: list[str]) -> None:
    import torch

    for number, path in enumerate(streams, 1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as where nobody has set another
    sys.argv[:] = ["-c", *arguments]
    try:
        exec(code, {"__name__": "__main__"})
    except Exception:
        traceback.print_exc()
        sys.exit(1)
