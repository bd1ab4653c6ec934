"""Who runs when, what is repeated, and what is said of those who fail. The workers are scripted, not measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from some_results import MACHINE, STAGES

from flashsloth.benchmark import runner
from flashsloth.benchmark.results import Results
from flashsloth.benchmark.runner import Bench, Settings
from flashsloth.benchmark.worker_process import WorkerError
from flashsloth.benchmark.workload import StandardJob, find_models
from flashsloth.errors import BenchmarkError

FACTS = {"parameters": 1, "visual_tokens": 81, "positions": 154, "flops": {}, "step_bytes": 1, "key_value_bytes": 1}
PLENTY = 10**12
QUIET, LOUD = 0.0, 0.5

Script = Callable[[str, str, int], float]
"""(model, request, how many of these before) -> others' share; may raise WorkerError."""


class Stage:
    """Starts scripted workers, and writes down what they are asked."""

    def __init__(self, script: Script = lambda *_: QUIET) -> None:
        self.script = script
        self.log: list[tuple[str, str]] = []
        self.pictures: list[tuple[str, int]] = []
        self.open = 0

    def start(self) -> ScriptedWorker:
        self.open += 1
        return ScriptedWorker(self)


class ScriptedWorker:
    """A worker that measures nothing."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._name = "machine"
        self._closed = False

    def request(self, do: str, **arguments: Any) -> Any:
        assert not self._closed
        if do == "build":
            self._name = arguments["spec"]["name"]
        before = sum(entry == (self._name, do) for entry in self._stage.log)
        self._stage.log.append((self._name, do))
        share = self._stage.script(self._name, do, before)
        if do == "machine":
            return {"machine": MACHINE, "others_share": share, "threads": 2}
        if do == "build":
            return FACTS
        if do == "peak":
            return 7
        self._stage.pictures += [(self._name, arguments["picture"] + row) for row in range(arguments.get("rows", 1))]
        return {"stages": {**STAGES, "other": 0.0}, "tokens": [1.0, 1.5], "others_share": share, "read_bandwidth": 50e9}

    def close(self, *, at_once: bool = False) -> None:
        if not self._closed:
            self._closed = True
            self._stage.open -= 1


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SETTLE_SECONDS", 0.0)


def run(stage: Stage, names: list[str], *, repeats: int = 2, available: int = PLENTY) -> Results:
    settings = Settings("cpu", "cpu", StandardJob(), repeats, batch=8, batched=("flashsloth",))
    bench = Bench(settings, stage.start, lambda: available, lambda _: None)
    results = bench.run(find_models(names))
    assert stage.open == 0
    return results


NAMES = ["flashsloth", "qwen2-vl-2b", "internvl2-2b"]


def runs_of(stage: Stage) -> list[str]:
    return [name for name, do in stage.log if do == "run"]


def test_runs_alternate_with_the_first() -> None:
    stage = Stage()
    results = run(stage, ["flashsloth", "qwen2-vl-2b", "internvl2-2b"])
    assert runs_of(stage) == ["flashsloth", "qwen2-vl-2b"] * 2 + ["flashsloth", "internvl2-2b"] * 2
    assert [(s.reference, s.other, s.reference_runs, s.other_runs) for s in results.sittings] == [
        ("flashsloth", "qwen2-vl-2b", [0, 1], [0, 1]),
        ("flashsloth", "internvl2-2b", [2, 3], [0, 1]),
    ]
    assert [name for name, do in stage.log if do == "build"] == ["flashsloth", "qwen2-vl-2b", "internvl2-2b"]
    assert results.model("flashsloth").peak_bytes == 7
    assert results.model("flashsloth").visual_tokens == 81


def test_the_other_is_gone_before_the_next_comes() -> None:
    stage = Stage()
    run(stage, ["flashsloth", "qwen2-vl-2b", "internvl2-2b"])
    assert stage.log.index(("qwen2-vl-2b", "peak")) < stage.log.index(("internvl2-2b", "build"))


def test_what_is_known_is_kept_from_model_to_model() -> None:
    stage, kept = Stage(), []
    settings = Settings("cpu", "cpu", StandardJob(), repeats=2, batch=8, batched=())

    def keep(results: Results) -> None:
        kept.append([len(results.model(name).runs) for name in NAMES])

    Bench(settings, stage.start, lambda: PLENTY, lambda _: None, keep).run(find_models(NAMES))
    assert kept == [[2, 2, 0], [4, 2, 2]]


def test_one_model_runs_alone() -> None:
    stage = Stage()
    results = run(stage, ["flashsloth"], repeats=3)
    assert runs_of(stage) == ["flashsloth"] * 3
    assert results.sittings == []


def test_batches_and_other_questions_are_asked_of_those_who_do_them() -> None:
    stage = Stage()
    results = run(stage, ["flashsloth", "flashsloth-int8", "qwen2-vl-2b"])
    first, eight, baseline = results.subjects
    assert (len(first.again), len(first.batches), first.batch_rows) == (2, 2, 8)
    assert (len(eight.again), len(eight.batches), eight.batch_rows) == (2, 0, None)
    assert (len(baseline.again), len(baseline.batches), baseline.batch_rows) == (0, 0, None)


def test_no_picture_comes_twice() -> None:
    stage = Stage()
    run(stage, ["flashsloth", "qwen2-vl-2b"])
    assert len(set(stage.pictures)) == len(stage.pictures)


def test_a_disturbed_run_is_thrown_away_and_repeated() -> None:
    stage = Stage(lambda name, do, before: LOUD if (name, do, before) == ("qwen2-vl-2b", "run", 0) else QUIET)
    results = run(stage, ["flashsloth", "qwen2-vl-2b"])
    baseline = results.model("qwen2-vl-2b")
    assert (len(baseline.runs), baseline.discarded) == (2, 1)
    assert not any(found.disturbed for found in baseline.runs)


def test_patience_ends_and_what_is_kept_then_is_marked() -> None:
    stage = Stage(lambda name, do, before: LOUD if do == "run" else QUIET)
    results = run(stage, ["flashsloth"], repeats=2)
    first = results.model("flashsloth")
    assert (len(first.runs), first.discarded) == (2, 2)
    assert all(found.disturbed for found in first.runs)
    assert not results.machine_disturbed


def test_the_machine_is_measured_again_when_disturbed() -> None:
    stage = Stage(lambda name, do, before: LOUD if do == "machine" and before < 2 else QUIET)
    assert not run(stage, ["flashsloth"]).machine_disturbed
    assert stage.log.count(("machine", "machine")) == 3
    assert run(Stage(lambda name, do, before: LOUD if do == "machine" else QUIET), ["flashsloth"]).machine_disturbed


def test_those_too_large_for_memory_together_take_turns() -> None:
    stage = Stage()
    results = run(stage, ["flashsloth", "flashsloth-f32"], repeats=3, available=10**10)
    assert runs_of(stage) == ["flashsloth"] * 2 + ["flashsloth-f32"] * 2 + ["flashsloth", "flashsloth-f32"]
    built = [name for name, do in stage.log if do == "build"]
    assert built == ["flashsloth", "flashsloth-f32"] * 2 + ["flashsloth"]
    assert results.sittings[0].other_runs == [0, 1, 2]
    assert results.model("flashsloth-f32").in_turns
    open_at_once, most = set(), 0
    for name, do in stage.log:
        if do == "build":
            open_at_once.add(name)
        elif do == "peak":
            open_at_once.discard(name)
        most = max(most, len(open_at_once))
    assert most == 1


def dies(model: str, request: str, after: int) -> Script:
    def script(name: str, do: str, before: int) -> float:
        if (name, do) == (model, request) and before >= after:
            raise WorkerError("killed")
        return QUIET

    return script


@pytest.mark.parametrize(("request_", "after", "runs"), [("build", 0, 0), ("run", 1, 1)])
def test_one_that_dies_is_reported_and_the_others_are_measured(request_: str, after: int, runs: int) -> None:
    stage = Stage(dies("qwen2-vl-2b", request_, after))
    results = run(stage, ["flashsloth", "qwen2-vl-2b", "internvl2-2b"])
    baseline = results.model("qwen2-vl-2b")
    assert baseline.failure == f"{request_}: killed"
    assert len(baseline.runs) == runs
    assert len(results.model("internvl2-2b").runs) == 2
    assert results.model("internvl2-2b").failure is None


def test_when_the_first_dies_the_others_run_alone() -> None:
    stage = Stage(dies("flashsloth", "run", 1))
    results = run(stage, ["flashsloth", "qwen2-vl-2b", "internvl2-2b"])
    assert results.model("flashsloth").failure == "run: killed"
    assert len(results.model("qwen2-vl-2b").runs) == len(results.model("internvl2-2b").runs) == 2
    assert results.sittings[1].reference_runs == []


def test_without_a_machine_there_are_no_results() -> None:
    stage = Stage(dies("machine", "machine", 0))
    with pytest.raises(WorkerError, match="killed"):
        run(stage, ["flashsloth"])
    assert stage.open == 0


def test_an_interruption_leaves_no_worker() -> None:
    def script(name: str, do: str, before: int) -> float:
        if (name, do) == ("qwen2-vl-2b", "run"):
            raise KeyboardInterrupt
        return QUIET

    stage = Stage(script)
    with pytest.raises(KeyboardInterrupt):
        run(stage, ["flashsloth", "qwen2-vl-2b"])
    assert stage.open == 0


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"batch": 0}])
def test_settings_that_measure_nothing_are_refused(wrong: dict[str, int]) -> None:
    fields: dict[str, Any] = {"repeats": 1, "batch": 1, **wrong}
    with pytest.raises(BenchmarkError, match="is 0; expected a whole number, at least 1"):
        Settings("cpu", "cpu", StandardJob(), batched=(), **fields)
