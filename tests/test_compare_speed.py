"""Two work trees side by side: who is measured when, what misses a gate, and what a worker does with a real model."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import compare_speed
import pytest
import speed_pairs
import speed_worker

from flashsloth.benchmark import checkpoints
from flashsloth.benchmark.timing import CpuContention
from flashsloth.model.loading.folders import shipped_folder

ROOT = Path(__file__).parents[1]
SETTINGS = speed_pairs.Settings(
    "nano", None, "cpu", pairs=4, names=("load", "1x2"), pictures=3, side_by_side=True, clock="wall"
)
MEGABYTE = 1 << 20


class FakeTree:
    """Answers as a worker does, and remembers who was asked for what."""

    def __init__(self, name: str, asked: list[tuple[str, str, int]], seconds: float, peak: int) -> None:
        self._name, self._asked, self._seconds, self._peak = name, asked, seconds, peak

    def request(self, do: str, **arguments: Any) -> Any:
        if do in ("load", "run"):
            self._asked.append((self._name, do, arguments["repetitions"]))
            return {
                "seconds": self._seconds,
                "processor_seconds": 0.1,
                "tokens": 2,
                "answers": self._name,
                "peak_bytes": self._peak,
                "device_peak_bytes": None,
            }
        return 0.0 if do == "cpu" else None


def compare(
    settings: speed_pairs.Settings, seconds: float = 0.2, peak: int = MEGABYTE
) -> tuple[speed_pairs.Comparer, list[tuple[str, str, int]]]:
    """An old tree that takes 0.2 s and a megabyte, and a new one; and who was asked, in order."""
    asked: list[tuple[str, str, int]] = []
    trees = {"old": FakeTree("old", asked, 0.2, MEGABYTE), "new": FakeTree("new", asked, seconds, peak)}

    @contextmanager
    def start(tree: str) -> Iterator[FakeTree]:
        asked.append((tree, "start", 0))
        yield trees[tree]

    comparer = speed_pairs.Comparer(settings, start, Path("checkpoint"), lambda what: None)
    comparer.run()
    return comparer, asked


@pytest.fixture(autouse=True)
def _undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_pairs, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(CpuContention, "others_share", lambda self, since: 0.0)


def test_side_by_side_trees_alternate() -> None:
    _, asked = compare(SETTINGS)
    runs = [(tree, times) for tree, do, times in asked if do == "run"]
    assert runs[:2] == [("old", speed_pairs.WARM_UPS), ("new", speed_pairs.WARM_UPS)]
    order = ["old", "new", "new", "old", "old", "new", "new", "old"]
    assert runs[2:] == [(tree, 3) for tree in order]  # 0.2 s three times: the first whole number beyond half a second


def test_one_process_at_a_time() -> None:
    comparer, asked = compare(dataclasses.replace(SETTINGS, side_by_side=False, pairs=2), seconds=1.0)
    assert [tree for tree, do, _ in asked if do == "start"] == ["old", "new", "new", "old"]
    assert [len(comparison.old) for comparison in comparer.comparisons.values()] == [2, 2]


@pytest.mark.parametrize(
    ("seconds", "peak", "misses"),
    [(0.2, MEGABYTE, []), (0.23, MEGABYTE, ["speed"]), (0.2, 2 * MEGABYTE, ["memory"]), (0.1, MEGABYTE // 2, [])],
)
def test_gates(seconds: float, peak: int, misses: list[str]) -> None:
    comparer, _ = compare(SETTINGS, seconds, peak)
    assert [comparison.misses for comparison in comparer.comparisons.values()] == [misses, misses]
    assert comparer.comparisons["1x2"].summary()["same_answers"] is False
    assert compare_speed.table(list(comparer.comparisons.values())).count("held") == (0 if misses else 2)


def test_processor_time_may_hold_the_gate() -> None:
    comparer, _ = compare(dataclasses.replace(SETTINGS, clock="processor"), seconds=0.4)
    assert not any(comparison.misses for comparison in comparer.comparisons.values())


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_speed.main([str(tmp_path), str(ROOT)]) == 2
    assert "holds no src/flashsloth" in capsys.readouterr().err
    assert compare_speed.main([str(ROOT), str(ROOT), "--only", "9x9"]) == 2
    assert "there is no workload '9x9'" in capsys.readouterr().err


def test_a_worker_measures_answers_of_full_length(tmp_path: Path) -> None:
    checkpoints.make_checkpoint(checkpoints.NANO, tmp_path)
    worker = speed_worker.Worker()
    worker.load(str(tmp_path), "cpu", None, repetitions=1)
    worker.check()
    for name in ("first-token", "next-question", "1x2", "known-4x2", "pictures"):
        first, again = (worker.run(name, number=1, repetitions=1, pictures=3) for _ in range(2))
        assert first["answers"] == again["answers"]
        assert first["seconds"] > 0
    assert worker.run("pictures", 3, repetitions=2, pictures=3)["tokens"] == 3 * speed_worker.SHORT


def test_no_picture_comes_twice() -> None:
    runs = [("1x2", 1), ("1x2", 2), ("1x64", 1)]
    pictures = [picture for run in runs for picture in itertools.islice(speed_worker._make_pictures(*run), 3)]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_answers_that_end_early_are_no_measure() -> None:
    worker = speed_worker.Worker()
    worker.load(str(shipped_folder()), "cpu", None, repetitions=1)
    with pytest.raises(ValueError, match="is no longer than one of 15"):
        worker.check()


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    report = tmp_path / "comparison.json"
    command = [sys.executable, str(ROOT / "tools" / "compare_speed.py"), str(ROOT), str(ROOT / "src")]
    options = ["--pairs", "1", "--only", "1x2", "--threads", "1", "--out", str(report)]
    subprocess.run([*command, *options], check=False, timeout=300)
    (workload,) = json.loads(report.read_text(encoding="utf-8"))["workloads"]
    assert workload["same_answers"]
