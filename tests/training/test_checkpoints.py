"""Checkpoints are whole or not there: after a kill at any moment, on a full disk, with files that are damaged."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint.api import CheckpointException

from flashsloth.training import checkpoints
from flashsloth.training.checkpoints import (
    MANIFEST,
    REMOVING,
    WRITING,
    SaveError,
    WriteError,
    changed,
    last_whole,
    new_checkpoint,
    new_files,
    read_manifest,
    shares_read,
    step_of,
    whole,
)
from tests.training import tiny_runs

NOT_ROOT = os.geteuid() != 0
SYSTEM_CALLS = ("fsync", "replace")
"""What a kill may come before: between any two of them the disk is in one of the states that a test goes through."""


def write(folder: Path, step: int, keep: int | None = None) -> None:
    with new_checkpoint(folder, step, keep) as aside:
        made = aside / f"checkpoint-{step}"
        (made / "deep").mkdir(parents=True)
        (made / "weights").write_text(f"weights of {step}", encoding="utf-8")
        (made / "deep" / "optimizer").write_text(f"optimizer of {step}", encoding="utf-8")


def assert_readable(checkpoint: Path | None, steps: tuple[int, ...]) -> None:
    assert checkpoint is not None
    step = step_of(checkpoint)
    assert step in steps
    assert (checkpoint / "weights").read_text(encoding="utf-8") == f"weights of {step}"
    assert (checkpoint / "deep" / "optimizer").read_text(encoding="utf-8") == f"optimizer of {step}"


def test_what_is_written_is_whole_and_only_so_many_are_kept(tmp_path: Path) -> None:
    assert last_whole(tmp_path / "nowhere") is None
    for step in (5, 10, 100, 20):
        write(tmp_path, step, keep=3)
    assert [path.name for path in whole(tmp_path)] == ["checkpoint-10", "checkpoint-20", "checkpoint-100"]
    assert_readable(last_whole(tmp_path), (100,))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100", "checkpoint-20"]
    write(tmp_path, 100, keep=None)  # over one of the same step
    assert len(whole(tmp_path)) == 3


class KilledError(BaseException):
    """Stands for SIGKILL: nothing that the code does afterwards counts."""


@pytest.fixture
def killed_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Kills before the n-th system call of those that change what is on the disk, and lets nothing be done after."""
    real = {name: getattr(os, name) for name in SYSTEM_CALLS}
    real_rmtree = shutil.rmtree

    def arm(count: int) -> None:
        left = [count]

        def counted(act: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise KilledError
                return act(*arguments, **options)

            return call

        for name, act in real.items():
            monkeypatch.setattr(checkpoints.os, name, counted(act))
        monkeypatch.setattr(checkpoints.shutil, "rmtree", counted(real_rmtree))

    yield arm
    monkeypatch.undo()


def test_killed_before_any_system_call_there_is_one_whole_checkpoint(
    tmp_path: Path, killed_before: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = 0
    while True:
        folder = tmp_path / str(moments)
        write(folder, 1, keep=1)
        killed_before(moments)
        try:
            write(folder, 2, keep=1)
        except KilledError:
            monkeypatch.undo()
        else:
            break
        assert_readable(last_whole(folder), (1, 2))
        write(folder, 3, keep=1)  # what was left is no obstacle, and gone
        assert [path.name for path in folder.iterdir()] == ["checkpoint-3"]
        moments += 1
    assert moments > 8


def test_killed_before_any_system_call_a_folder_is_whole_or_not_done(
    tmp_path: Path, killed_before: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(folder: Path) -> None:
        with new_files(folder, last="config.json") as aside:
            (aside / "config.json").write_text("{}", encoding="utf-8")
            (aside / "weights").write_text("weights", encoding="utf-8")

    moments = 0
    while True:
        folder = tmp_path / str(moments)
        killed_before(moments)
        try:
            save(folder)
        except KilledError:
            monkeypatch.undo()
        else:
            break
        if (folder / "config.json").exists():
            assert (folder / "weights").read_text(encoding="utf-8") == "weights"
        save(folder)
        assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "config.json", "weights"]
        assert changed(folder) is None
        moments += 1
    assert moments > 4


def flip(path: Path) -> None:
    """One bit of it."""
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 1
    path.write_bytes(found)


def forget(checkpoint: Path, key: str) -> None:
    """Have its manifest say less."""
    said = read_manifest(checkpoint)
    del said[key]
    (checkpoint / MANIFEST).write_text(json.dumps(said), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / MANIFEST).unlink(), "it has no checkpoint.json"),
        (lambda path: (path / MANIFEST).write_text("{"), "checkpoint.json cannot be read"),
        (lambda path: (path / "weights").unlink(), "weights is missing"),
        (lambda path: (path / "weights").write_text("short"), "weights has 5 bytes, expected 12"),
        (lambda path: flip(path / "weights"), "weights is not what was written: its bytes have changed since"),
        (lambda path: flip(path / "deep" / "optimizer"), "deep/optimizer is not what was written"),
        (lambda path: forget(path, "files"), "checkpoint.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], Any], message: str
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    damage(tmp_path / "checkpoint-2")
    (tmp_path / WRITING).mkdir()
    with caplog.at_level(logging.WARNING):
        assert_readable(last_whole(tmp_path), (1,))
    assert f"checkpoint-2 is not whole ({message}" in caplog.text
    assert f"{WRITING} was not finished" in caplog.text


def test_where_every_checkpoint_is_damaged_the_run_does_not_begin_again(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, step)
        flip(tmp_path / f"checkpoint-{step}" / "weights")
    with pytest.raises(SaveError, match=r"checkpoint-2 is not whole \(weights .*put its files back, or remove"):
        last_whole(tmp_path)


def test_checkpoints_of_older_versions_are_known_by_their_sizes(tmp_path: Path) -> None:
    write(tmp_path, 1)
    manifest = tmp_path / "checkpoint-1" / MANIFEST
    said = read_manifest(tmp_path / "checkpoint-1")
    said["files"] = {name: facts["bytes"] for name, facts in said["files"].items()}
    manifest.write_text(json.dumps(said), encoding="utf-8")
    flip(tmp_path / "checkpoint-1" / "weights")
    assert last_whole(tmp_path) == tmp_path / "checkpoint-1"
    (tmp_path / "checkpoint-1" / "weights").write_text("short", encoding="utf-8")
    with pytest.raises(SaveError):
        last_whole(tmp_path)


def test_half_a_removed_checkpoint_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "checkpoint-1").rename(tmp_path / REMOVING)
    assert last_whole(tmp_path) is None
    write(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("file write failed"),
        checkpoints.SafetensorError("os error 28"),
    ],
    ids=["python", "torch", "safetensors"],
)
def test_what_cannot_be_written_leaves_the_last_one(tmp_path: Path, error: Exception) -> None:
    write(tmp_path, 1)

    def fail() -> None:
        with new_checkpoint(tmp_path, 2, keep=1) as aside:
            (aside / "checkpoint-2").mkdir()
            (aside / "checkpoint-2" / "half").write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(
        SaveError, match=r"checkpoint of step 2 could not be written .*last whole checkpoint is .*-1\. "
    ):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


# Whole runs on a disk that fills up

BELOW_WEIGHTS, BELOW_OPTIMIZER = 80_000, 150_000
"""Bytes: the tiny model's weights take 90,000, its optimizer's state twice that, all other files less."""


def limit_to_less_than_weights(rank: int) -> None:
    """No file of this process may be as large as the weights, which safetensors writes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (BELOW_WEIGHTS, BELOW_WEIGHTS))


def limit_to_less_than_optimizer(rank: int) -> None:
    """Nor as large as the optimizer's state, which torch writes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (BELOW_OPTIMIZER, BELOW_OPTIMIZER))


def assert_stopped_by_a_full_disk(run: tiny_runs.Run, steps: Path) -> None:
    assert run.end() == [1], run.said()
    last = run.said().strip().splitlines()[-1]
    assert last.startswith("error: the checkpoint of step ")
    assert "could not be written" in last
    assert "go on with --resume" in last
    assert "Traceback" not in run.said()
    assert not (steps / WRITING).exists()


@pytest.mark.parametrize("limit", [limit_to_less_than_weights, limit_to_less_than_optimizer])
def test_a_file_that_cannot_grow_ends_in_one_line_and_the_last_checkpoint_stays(tmp_path: Path, limit: Any) -> None:
    stage = tiny_runs.with_batch(tiny_runs.INSTRUCTION, batch_size=2, steps=4, save_every=2)
    recipe = tiny_runs.write_recipe(tmp_path, stage)
    steps = tmp_path / "out" / "0-instruction" / "steps"
    first = tiny_runs.start(recipe, pause_after=1)
    first.wait_for_step(1)
    first.signal(signal.SIGTERM)
    first.end()
    before = {path: path.read_bytes() for path in steps.rglob("*") if path.is_file()}
    assert before
    run = tiny_runs.start(recipe, "--resume", hook=limit)
    assert_stopped_by_a_full_disk(run, steps)
    assert {path: path.read_bytes() for path in steps.rglob("*") if path.is_file()} == before
    again = tiny_runs.start(recipe, "--resume")
    assert again.end() == [0], again.said()


NO_LOG = 5_000
"""Bytes: no log, no curve, no share of a tiny model is as small."""


def limit_the_second_process(rank: int) -> None:
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (NO_LOG, NO_LOG))


def limit_both(rank: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (NO_LOG, NO_LOG))


@pytest.mark.parametrize(
    ("engine", "limit"),
    [
        ("ddp", limit_both),  # its second process writes its random state alone, which is smaller
        ("fsdp2", limit_both),
        ("fsdp2", limit_the_second_process),
        *(
            pytest.param(kind, limit, marks=tiny_runs.NEEDS_DEEPSPEED)
            for kind in ("zero2", "zero3")
            for limit in (limit_both, limit_the_second_process)
        ),
    ],
)
def test_all_processes_stop_where_one_cannot_write(tmp_path: Path, engine: str, limit: Any) -> None:
    stage = tiny_runs.with_batch(tiny_runs.INSTRUCTION, steps=4, save_every=2) + f", engine: {{kind: {engine}}}"
    recipe = tiny_runs.write_recipe(tmp_path, stage)
    run = tiny_runs.start(recipe, processes=2, hook=limit)
    assert run.end() == [1, 1], run.said()
    for rank in (0, 1):
        last = run.said(rank).strip().splitlines()[-1]
        assert last.startswith("error: the checkpoint of step 2 could not be written"), run.said(rank)
        assert "Traceback" not in run.said(rank)
    again = tiny_runs.start(recipe, "--resume", processes=2)
    assert again.end() == [0, 0], again.said()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Exception("No space left on device (os error 28)"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "as on a full disk"),
    ],
    ids=["tokenizers", "torch"],
)
def test_a_full_disk_is_heard_of_from_every_library(tmp_path: Path, error: Exception, said: str) -> None:
    with pytest.raises(WriteError, match=rf"the model could not be written into .*{said}"), new_files(tmp_path, "a"):
        raise error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), new_files(tmp_path, "a"):  # which is no matter of disks
        raise KeyError


def test_a_share_that_is_damaged_is_named_and_an_earlier_checkpoint_taken(tmp_path: Path) -> None:
    stage = tiny_runs.with_batch(tiny_runs.INSTRUCTION, save_every=1, steps=6) + ", engine: {kind: fsdp2}"
    recipe = tiny_runs.write_recipe(tmp_path, stage)
    run = tiny_runs.start(recipe, processes=2, pause_after=2)
    run.wait_for_step(2)
    run.signal(signal.SIGTERM)
    run.end()
    earlier, last = whole(tmp_path / "out" / "0-instruction" / "steps")[-2:]
    flip(next(last.rglob("*.distcp")))
    again = tiny_runs.start(recipe, "--resume", processes=2)
    assert again.end() == [0, 0], again.said()
    assert f"{last} is not whole (" in again.said()
    assert ".distcp is not what was written: its bytes have changed since): not used" in again.said()
    assert f"going on from {earlier}" in again.said()


def test_shares_that_cannot_be_read_are_said_in_a_line(tmp_path: Path) -> None:
    with (
        pytest.raises(SaveError, match=r"checkpoint-2 could not be read: process 1: no such thing"),
        shares_read(tmp_path / "checkpoint-2"),
    ):
        raise CheckpointException("", {1: (OSError("no such thing"), None)})  # type: ignore[dict-item]


@pytest.mark.skipif(NOT_ROOT, reason="only root may mount a small disk")
def test_a_disk_that_fills_up_ends_in_one_line_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    disk = tmp_path / "out"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    try:
        stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=20, save_every=1, save_total_limit=99)
        recipe = tiny_runs.write_recipe(tmp_path, stage)
        run = tiny_runs.start(recipe)
        steps = disk / "0-alignment" / "steps"
        assert_stopped_by_a_full_disk(run, steps)
        assert len(whole(steps)) >= 2
        for path in whole(steps)[:-1]:  # make room, as the line says
            shutil.rmtree(path)
        reached = step_of(whole(steps)[-1])
        again = tiny_runs.start(recipe, "--resume", "--set", "stages.0.save_total_limit=1")
        assert again.end() == [0], again.said()
        assert f"checkpoint-{reached}" in again.said()
        assert json.loads((disk / "0-alignment" / "log.json").read_text(encoding="utf-8"))[-2]["step"] == 20
    finally:
        subprocess.run(["umount", str(disk)], check=True)
