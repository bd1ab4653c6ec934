"""`flashsloth bench`: the quick suite for real, an earlier run shown again, and mistakes found before measuring."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
from forked import python
from some_results import make_results

from flashsloth.benchmark import runner, worker_process
from flashsloth.benchmark.results import RESULTS_FILE, load_results, save_results
from flashsloth.benchmark.runner import Bench
from flashsloth.benchmark.worker_process import WorkerProcess
from flashsloth.cli.app import main


@pytest.fixture
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Bench, specs: object) -> None:
        raise AssertionError("something was measured")

    monkeypatch.setattr(Bench, "run", refuse)


SMALL_MACHINE = """
from flashsloth.benchmark import worker
from flashsloth.planning import machine
machine.MATRIX_SHAPES = {"cpu": ((8, 32, 64),)}
machine.READ_BYTES = machine.MOMENT_BYTES = {"cpu": 1 << 16}
machine.WAY_SECONDS = 0.01
worker.main()
"""
"""The worker itself, which measures its machine in no time."""


def test_the_quick_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MACHINE_PATIENCE", 0)  # what is measured here means nothing
    command = [*python(), "-c", SMALL_MACHINE]
    monkeypatch.setattr(worker_process, "WorkerProcess", partial(WorkerProcess, command=command))
    arguments = ["--quick", "--repeats", "1", "--new-tokens", "4", "--batch", "2", "--threads", "1"]
    assert main(["bench", *arguments, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Nano, not sped up" in shown
    results = load_results(tmp_path)
    fast, plain = results.subjects
    assert (fast.failure, plain.failure) == (None, None)
    assert (fast.name, plain.name) == ("nano", "nano-plain")
    assert fast.flops == plain.flops
    assert results.threads == 1
    assert results.machine["read_bandwidth"] > 0
    assert len(fast.runs) == len(plain.runs) == 1
    assert len(fast.again) == 1
    assert fast.batch_rows == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        RESULTS_FILE,
        "results.md",
        "response_time.png",
        "where_time_goes.png",
    }


@pytest.mark.usefixtures("nothing_measured")
def test_an_earlier_run_is_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_results(make_results(), tmp_path / RESULTS_FILE)
    assert main(["bench", "--from", str(tmp_path / RESULTS_FILE), "--out", str(tmp_path / "again")]) == 0
    assert "Qwen2-VL-2B" in capsys.readouterr().out
    assert (tmp_path / "again" / "response_time.png").is_file()
    assert main(["bench", "--from", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == dataclasses.asdict(make_results())


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "tpu"], "there is no suite 'tpu'; expected one of cpu, gpu, quick"),
        (["--quick", "--suite", "cpu"], "--quick and --suite cpu were both given"),
        (["--quick", "--only", "nano,gpt"], "there is no model 'gpt'"),
        (["--quick", "--repeats", "0"], "repeats is 0; expected a whole number, at least 1"),
        (["--quick", "--batch", "0"], "batch is 0; expected a whole number, at least 1"),
        (["--quick", "--tokens", "1"], "text_tokens is 1; expected a whole number, at least 8"),
        (["--quick", "--threads", "-1"], "--threads is -1; expected 0"),
        (["--from", "nowhere.json"], "there is no file 'nowhere.json'"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1


@pytest.mark.usefixtures("nothing_measured")
def test_a_folder_that_cannot_be_written_is_found_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "folder"):
        assert main(["bench", "--quick", "--out", str(folder)]) == 2
        assert str(file) in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_measured")
def test_without_a_gpu_its_suite_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "--suite", "gpu"]) == 2
    assert "there is no GPU that this torch can use" in capsys.readouterr().err
