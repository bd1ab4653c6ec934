"""Whole runs whose workers are killed, hang, or have little to live on."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from flashsloth.training.checkpoints import last_whole
from flashsloth.training.dataloader import BatchMaker
from tests.training import tiny_runs

SIGTERM_EXIT = 143
CLONE_NEWNS = 0x00020000
"""Linux: a mount namespace of its own."""
STAGE = tiny_runs.with_batch(tiny_runs.ALIGNMENT, workers=2, steps=24, batch_size=2, save_every=100)
STEPS_FOLDER = Path("out") / "0-alignment" / "steps"
MAKE = BatchMaker.__call__


def workers_of(run: tiny_runs.Run) -> list[Any]:
    return psutil.Process(run.processes[0].pid).children()


def folder_of(maker: BatchMaker) -> Path:
    """A test's own."""
    return Path(maker.dataset.bad_samples.path).parents[2]


def slow(rank: int) -> None:
    """Batches take a while, so that a worker is in the midst of one when it is killed."""

    def make(self: BatchMaker, numbers: list[int]) -> Any:
        time.sleep(0.02)
        return MAKE(self, numbers)

    BatchMaker.__call__ = make  # type: ignore[method-assign]


def hang_in_the_fifth(rank: int) -> None:
    """The fifth batch of an only worker does not come."""
    made = []

    def make(self: BatchMaker, numbers: list[int]) -> Any:
        made.append(numbers)
        if len(made) == 5:
            time.sleep(3600)
        return MAKE(self, numbers)

    BatchMaker.__call__ = make  # type: ignore[method-assign]


def die_in_the_fifth(rank: int) -> None:
    """The fifth batch kills whoever prepares it."""
    made = []

    def make(self: BatchMaker, numbers: list[int]) -> Any:
        made.append(numbers)
        marker = folder_of(self) / "deadly"
        if len(made) == 5 and not marker.exists():
            marker.write_text(repr(numbers), encoding="utf-8")
        if marker.exists() and marker.read_text(encoding="utf-8") == repr(numbers):
            os.kill(os.getpid(), signal.SIGKILL)
        return MAKE(self, numbers)

    BatchMaker.__call__ = make  # type: ignore[method-assign]


def assert_same_end(one: Path, other: Path) -> None:
    assert tiny_runs.losses(one, "0-alignment") == tiny_runs.losses(other, "0-alignment")
    weights = [load_file(path.parent / "out" / "0-alignment" / "model.safetensors") for path in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_a_run_whose_workers_are_killed_learns_the_same(tmp_path: Path) -> None:
    whole = tiny_runs.write_recipe(tmp_path / "whole", STAGE)
    run = tiny_runs.start(whole)
    assert run.end() == [0], run.said()
    other = tiny_runs.write_recipe(tmp_path / "other", STAGE)
    run = tiny_runs.start(other, hook=slow)
    for step in (3, 9):
        run.wait_for_step(step)
        for worker in workers_of(run):
            worker.kill()
    assert run.end() == [0], run.said()
    assert "was killed by SIGKILL: another one does its work, and nothing is lost" in run.said()
    assert_same_end(whole, other)


def test_a_run_is_stopped_while_a_worker_hangs(tmp_path: Path) -> None:
    stage = STAGE.replace("workers: 2", "workers: 1")
    whole = tiny_runs.write_recipe(tmp_path / "whole", stage)
    assert tiny_runs.start(whole).end() == [0]
    recipe = tiny_runs.write_recipe(tmp_path / "other", stage)
    run = tiny_runs.start(recipe, hook=hang_in_the_fifth)
    run.wait_for_step(2)  # of two batches each
    run.signal(signal.SIGTERM)
    assert run.end() == [SIGTERM_EXIT], run.said()
    saved = last_whole(recipe.parent / STEPS_FOLDER)
    assert saved is not None
    assert saved.name == "checkpoint-2"
    assert f"error: stopped by SIGTERM after step 2 of 24, saved in {saved}: go on with --resume" in run.said()
    run = tiny_runs.start(recipe, "--resume")
    assert run.end() == [0], run.said()
    assert_same_end(whole, recipe)


def test_a_stop_before_the_first_batch_leaves_no_checkpoint(tmp_path: Path) -> None:
    recipe = tiny_runs.write_recipe(tmp_path, STAGE)
    run = tiny_runs.start(recipe, hook=hang_at_once)
    marker = tmp_path / "hangs"
    end = time.monotonic() + tiny_runs.SECONDS
    while not marker.exists() and run.is_alive() and time.monotonic() < end:
        time.sleep(tiny_runs.POLL_SECONDS)
    run.signal(signal.SIGTERM)
    assert run.end() == [SIGTERM_EXIT], run.said()
    assert "error: stopped by SIGTERM before the first step was done: go on with --resume" in run.said()
    assert last_whole(tmp_path / STEPS_FOLDER) is None


def hang_at_once(rank: int) -> None:
    """No batch comes."""

    def make(self: BatchMaker, numbers: list[int]) -> Any:
        (folder_of(self) / "hangs").touch()
        time.sleep(3600)

    BatchMaker.__call__ = make  # type: ignore[method-assign]


def test_a_batch_that_kills_its_workers_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    recipe = tiny_runs.write_recipe(tmp_path, STAGE.replace("workers: 2", "workers: 1"))
    run = tiny_runs.start(recipe, hook=die_in_the_fifth)
    assert run.end() == [1], run.said()
    last = run.said().strip().splitlines()[-1]
    saved = last_whole(tmp_path / STEPS_FOLDER)
    assert saved is not None
    assert last.startswith("error: 3 data workers were killed by SIGKILL one after the other, each while it prepared")
    assert last.endswith(f"saved after step 2 in {saved}: go on with --resume")
    assert "Traceback" not in run.said()
    run = tiny_runs.start(recipe, "--resume")
    assert run.end() == [0], run.said()


NO_SHARED_MEMORY = """
import subprocess, sys
from pathlib import Path
mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"], capture_output=True)
if mounted.returncode:
    sys.exit(77)
Path("/dev/shm/full").write_bytes(b"0" * 2**15)
try:
    while True:
        with open("/dev/shm/full", "ab", buffering=0) as file:
            file.write(b"0" * 4096)
except OSError:
    pass
"""
GO_ON = """
import os
os.execv(sys.executable, [sys.executable, "-m", "flashsloth", "train", sys.argv[1]])
"""
CANNOT_MOUNT = 77
STEPS_WITHOUT = 4


def skip_unless_root(*programs: str) -> None:
    if os.geteuid() != 0 or any(shutil.which(program) is None for program in programs):
        pytest.skip(f"only root may mount over /dev/shm, with {', '.join(programs)}")


def recipe_with(folder: Path, workers: int) -> Path:
    held_out = "eval_data: [{world: 1, count: 3, split: test, text: caption}], data:"
    stage = STAGE.replace("data:", held_out).replace("workers: 2", f"workers: {workers}")
    return tiny_runs.write_recipe(folder, stage.replace("steps: 24", f"steps: {STEPS_WITHOUT}"))


def lose_shared_memory(rank: int) -> None:
    """Give this process a file system of its own, in which not a byte can be written to /dev/shm."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode:
        os._exit(CANNOT_MOUNT)
    try:
        exec(NO_SHARED_MEMORY, {})
    except SystemExit:
        os._exit(CANNOT_MOUNT)
    with pytest.raises(OSError, match="No space left"):
        multiprocessing.Lock()


def test_a_run_needs_no_shared_memory(tmp_path: Path) -> None:
    """Not a byte of it: torch's workers would hang, and Python's queues could not even be made."""
    skip_unless_root("mount")
    recipe = recipe_with(tmp_path, workers=3)
    run = tiny_runs.start(recipe, hook=lose_shared_memory)
    ended = run.end()
    if ended == [CANNOT_MOUNT]:
        pytest.skip("this system lets nobody mount over /dev/shm")
    assert ended == [0], run.said()
    assert [step for step, _ in tiny_runs.losses(recipe, "0-alignment")] == list(range(1, STEPS_WITHOUT + 1))
    assert "data workers instead of" not in run.said()


def test_a_run_needs_no_shared_memory_and_few_open_files_from_its_start(tmp_path: Path) -> None:
    """Also what is imported: a Python of its own, in which nothing was."""
    skip_unless_root("unshare", "mount", "prlimit")
    recipe = recipe_with(tmp_path, workers=24)
    code = NO_SHARED_MEMORY + GO_ON
    command = ["unshare", "-m", "prlimit", "--nofile=64:64", sys.executable, "-c", code, str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=tiny_runs.SECONDS, env=environment)
    if done.returncode in (1, CANNOT_MOUNT) and "Traceback" not in done.stderr and not (tmp_path / "out").exists():
        pytest.skip("this system lets nobody mount over /dev/shm")
    assert done.returncode == 0, done.stderr
    assert [step for step, _ in tiny_runs.losses(recipe, "0-alignment")] == list(range(1, STEPS_WITHOUT + 1))
    assert "data workers instead of 24: a process may have 64 files open" in done.stderr
