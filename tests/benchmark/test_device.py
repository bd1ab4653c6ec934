"""An accelerator's busy side, as far as a processor can run it: tiny models for real, the rest scripted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_shapes
import torch
from rich.console import Console

from flashsloth.benchmark.device import (
    DeviceResults,
    DeviceSettings,
    DeviceTraining,
    load_device_results,
    measure_device,
    measure_training,
    save_device_results,
)
from flashsloth.benchmark.device_report import print_device_results, write_device_report
from flashsloth.benchmark.models import make_baseline
from flashsloth.benchmark.models.flashsloth import BenchmarkedFlashSloth, make_published_size
from flashsloth.benchmark.throughput import (
    QUERIES,
    Agreement,
    Throughput,
    device_facts,
    measure_agreement,
    measure_throughput,
    parse_facts,
)
from flashsloth.benchmark.timing import StageClock, WallTime
from flashsloth.benchmark.worker import Worker
from flashsloth.benchmark.worker_process import WorkerError
from flashsloth.benchmark.workload import MODELS, SUITES, StandardJob, find_models
from flashsloth.errors import BenchmarkError

CPU = torch.device("cpu")
STAGES = ("alignment", "instruction")
JOB = StandardJob(text_tokens=16, new_tokens=4)


@pytest.fixture
def model() -> BenchmarkedFlashSloth:
    return make_published_size(1, torch.float32, CPU, JOB, tiny_shapes.flashsloth())


def test_a_batch_tells_every_step_once(model: BenchmarkedFlashSloth) -> None:
    clock = StageClock(WallTime())
    with clock.watching(model.parts), clock.counting_steps(model.head):
        model.answer_batch([JOB.picture(number) for number in range(6)], 5)
    assert len(clock.tokens()) == 5


@pytest.mark.parametrize("new_tokens", [3, 8])
def test_many_pictures_are_all_answered(model: BenchmarkedFlashSloth, new_tokens: int) -> None:
    found = measure_throughput(model, "flashsloth", JOB, pictures=7, new_tokens=new_tokens, rows=4, device=CPU)
    assert (found.pictures, found.new_tokens, found.rows, found.failure) == (7, new_tokens, 4, None)
    assert found.tokens_per_second == pytest.approx(found.pictures_per_second * new_tokens)


def test_a_baseline_answers_in_batches_and_in_smaller_ones_where_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = make_baseline(tiny_shapes.small_baseline("internvl2-2b"), torch.float32, CPU, JOB)
    sizes: list[int] = []

    def count(pictures: list[Any], new_tokens: int) -> None:
        sizes.append(len(pictures))
        if len(pictures) > 2:
            raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(baseline, "answer_batch", count)
    found = measure_throughput(baseline, "internvl2-2b", JOB, pictures=5, new_tokens=3, rows=4, device=CPU)
    assert found.rows == 2
    assert sizes == [4, 2, 2, 2, 1]


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("bfloat16", 0.1)])
def test_the_fast_path_is_held_against_float32(dtype: str, most: float) -> None:
    plain = make_published_size(1, torch.float32, CPU, JOB, tiny_shapes.flashsloth())
    found = measure_agreement(plain, "flashsloth", dtype, None, JOB)
    assert found.positions == JOB.new_tokens
    assert 0 <= found.mean_kl <= found.largest_kl < most
    assert (found.largest_kl > 1e-9) == (dtype == "bfloat16")


def test_a_baseline_of_tiles_learns() -> None:
    name = "internvl2-2b"
    baseline = tiny_shapes.small_baseline(name)
    found = measure_training(name, "instruction", rows=1, text_tokens=16, steps=1, device=CPU, baseline=baseline)
    assert found.samples_per_second > 0
    assert found.positions > 16
    assert found.learning > 0


def test_a_later_stage_trains_more_and_the_small_model_trains_too() -> None:
    baseline = tiny_shapes.small_baseline("qwen2-vl-2b")
    learning = [measure_training("qwen2-vl-2b", stage, 1, 16, 1, CPU, baseline=baseline).learning for stage in STAGES]
    assert learning[0] < learning[1]
    own = measure_training("flashsloth", "alignment", 1, 16, 1, CPU, size=None)
    assert own.seconds
    with pytest.raises(BenchmarkError, match="stage is 'third'; expected one of alignment, instruction"):
        measure_training("flashsloth", "third", 1, 16, 1, CPU)
    with pytest.raises(BenchmarkError, match="there is no 'gpt' to train"):
        measure_training("gpt", "alignment", 1, 16, 1, CPU)


def test_the_driver_is_asked_for_its_clocks() -> None:
    values = ["NVIDIA H200", "570.1", "[N/A]", *(["1"] * (len(QUERIES) - 3))]
    facts = parse_facts(", ".join(values))
    assert facts["name"] == "NVIDIA H200"
    assert "vbios_version" not in facts
    assert {"clocks.sm", "clocks.max.sm", "power.limit"} <= facts.keys()
    assert {"torch", "transformers"} <= device_facts().keys()


class Scripted:
    """A worker that measures nothing."""

    def __init__(self, script: Callable[[str, dict[str, Any]], Any]) -> None:
        self._script = script

    def request(self, do: str, **arguments: Any) -> Any:
        return self._script(do, arguments)

    def close(self, *, at_once: bool = False) -> None:
        return


def scripted_results(fails: str = "") -> DeviceResults:
    def script(do: str, arguments: dict[str, Any]) -> Any:
        if do == fails:
            raise WorkerError("out of memory")
        if do == "facts":
            return {"name": "H200", "clocks.sm": "1980 MHz"}
        if do == "start":
            return {"build": 20.0, "first_answer": 60.0, "second_answer": 0.1}
        if do == "agree":
            return dataclasses.asdict(Agreement(arguments["spec"]["name"], 64, 4e-4, 1e-5))
        if do == "throughput":
            return dataclasses.asdict(Throughput("flashsloth", arguments["new_tokens"], 256, arguments["rows"], 2.0))
        share = 1 if arguments["name"] == "flashsloth" else 4
        name, stage, rows = arguments["name"], arguments["stage"], arguments["rows"]
        return dataclasses.asdict(DeviceTraining(name, stage, rows, 400, (0.5,), share * 10**10, 7))

    settings = DeviceSettings("cuda", JOB)
    return measure_device(
        find_models(["flashsloth"]), ["flashsloth", "qwen2-vl-2b"], settings, lambda: Scripted(script), lambda _: None
    )


def test_everything_is_measured_written_and_shown(tmp_path: Path) -> None:
    results = scripted_results()
    assert [(one.subject, one.new_tokens) for one in results.throughput] == [("flashsloth", 3), ("flashsloth", 64)]
    assert len(results.training) == 4
    paths = write_device_report(results, tmp_path)
    assert load_device_results(tmp_path) == results
    text = paths[1].read_text(encoding="utf-8")
    for shown in ("128.0", "4.0e-04", "8,192", "75% less", "64.0", "1980 MHz", "60.0 s"):
        assert shown in text
    console = Console(width=200, record=True, quiet=False, file=(tmp_path / "shown").open("w"))
    print_device_results(results, console)
    assert "75% less" in console.export_text()


def test_who_fails_is_reported_and_the_others_are_measured(tmp_path: Path) -> None:
    results = scripted_results(fails="throughput")
    assert [one.failure for one in results.throughput] == ["out of memory"] * 2
    assert all(one.failure is None for one in results.training)
    assert scripted_results(fails="agree").failures == {"flashsloth": "out of memory"}
    training = scripted_results(fails="train")
    assert [one.failure for one in training.training] == ["out of memory"] * 4
    assert "out of memory" in write_device_report(training, tmp_path)[1].read_text(encoding="utf-8")


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"expected the device\.json of an earlier run"):
        load_device_results(tmp_path)
    path = save_device_results(scripted_results(), tmp_path)
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stored, "format": 9}), encoding="utf-8")
    with pytest.raises(BenchmarkError, match="format 9; expected 1"):
        load_device_results(path)
    path.write_text(json.dumps({**stored, "throughput": [{}]}), encoding="utf-8")
    with pytest.raises(BenchmarkError, match="damaged"):
        load_device_results(path)


def test_a_worker_builds_and_answers() -> None:
    worker = Worker()
    with pytest.raises(BenchmarkError, match=r"request is 'ran'; expected one of machine, .*facts"):
        worker.answer({"do": "ran"})
    with pytest.raises(BenchmarkError, match="nothing is built"):
        worker.answer({"do": "throughput", "new_tokens": 3, "pictures": 2, "rows": 1})
    spec = {name: getattr(MODELS["nano"], name) for name in MODELS["nano"].__dataclass_fields__}
    seconds = worker.answer({"do": "start", "spec": spec, "job": dataclasses.asdict(JOB), "device": "cpu"})
    assert set(seconds) == {"build", "first_answer", "second_answer"}
    found = worker.answer({"do": "throughput", "new_tokens": 2, "pictures": 3, "rows": 2})
    assert found["seconds"] > 0


def test_the_gpu_suite_measures_all_that_is_promised() -> None:
    suite = SUITES["gpu"]
    assert {"flashsloth", "flashsloth-hd", "flashsloth-int8", "flashsloth-int4", "flashsloth-plain"} <= set(suite.names)
    assert {"flashsloth", "flashsloth-hd"} <= set(suite.busy) <= set(suite.names)
    assert {"flashsloth", "qwen2-vl-2b", "internvl2-2b"} <= set(suite.trained) & set(suite.names)
    settings = DeviceSettings("cuda", JOB)
    assert settings.answers == (3, 64)
    assert set(settings.stage_rows) == {"alignment", "instruction"}
