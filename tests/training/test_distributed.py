"""Two processes learn what one does, over gloo: DDP and FSDP2, also where one of them has no pictures in a step."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_runs
import torch

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

STEPS = 9
SAMPLES_A_STEP = 4
WITHIN = 1e-6
WORDS = ("red", "a blue chair", "on the left of it", "yes")


def write_data(folder: Path) -> Path:
    """LLaVA's JSON: of each step's four samples, the first two have pictures, or none, or only the last two have."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(STEPS * SAMPLES_A_STEP):
        step, place = divmod(number, SAMPLES_A_STEP)
        record: dict[str, Any] = {
            "id": str(number),
            "conversations": [
                {"from": "human", "value": "What is it? " * (1 + number % 3)},
                {"from": "gpt", "value": " ".join(WORDS[: 1 + number % 4])},
            ],
        }
        if (place < SAMPLES_A_STEP // 2) == (step % 3 == 0) or step % 3 == 2:
            record["image"] = f"{number % 5}.png"
        records.append(record)
    for number in range(5):
        tiny.picture(number).save(folder / f"{number}.png")
    path = folder / "data.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def recipe(folder: Path, stage: str, **changes: Any) -> Path:
    data = write_data(folder / "data")
    settings = {
        "batch_size": SAMPLES_A_STEP,
        "micro_batch_size": 1,
        "steps": STEPS,
        "log_every": 1,
        "save_every": 1000,
        "workers": 0,
        "shuffle": False,
        "group_by_modality_length": False,
        "data": [{"json": str(data), "images": str(data.parent)}],
        **changes,
    }
    words = {"alignment": {"stage": "alignment", "learning_rate": 1e-2}}.get(
        stage, {"stage": stage, "template": "chat", "learning_rate": 1e-3}
    )
    line = json.dumps({**words, **settings})[1:-1]
    path = tiny_runs.write_recipe(folder, line)
    text = path.read_text(encoding="utf-8").replace("num_query_tokens", "sap_dropout: 0.0\n    num_query_tokens")
    path.write_text(text, encoding="utf-8")
    return path


def losses_of(folder: Path, stage: str, processes: int, **changes: Any) -> list[float]:
    path = recipe(folder, stage, micro_batch_size=SAMPLES_A_STEP // processes, **changes)
    run = tiny_runs.start(path, processes=processes)
    assert run.end() == [0] * processes, run.said()
    found = tiny_runs.losses(path, f"0-{stage}")
    assert [step for step, _ in found] == list(range(1, STEPS + 1))
    return [loss for _, loss in found]


def weights_of(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    made = folder / "out" / f"0-{stage}"
    model: Any = FlashSlothForConditionalGeneration.from_pretrained(made)
    return model.state_dict()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[float]]]:
    """What one process learns, in each stage."""
    found = {}
    for stage in ("alignment", "instruction", "instruction_hd"):
        folder = tmp_path_factory.mktemp(stage)
        found[stage] = (folder, losses_of(folder, stage, 1))
    return found


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("alignment", {"engine": {"kind": "ddp"}}),
        ("alignment", {"engine": {"kind": "fsdp2"}}),
        ("instruction", {"engine": {"kind": "ddp"}}),
        ("instruction", {"engine": {"kind": "fsdp2"}, "activation_checkpointing": True}),
        ("instruction", {"engine": {"kind": "fsdp2", "reshard_after_forward": False}}),
        ("instruction_hd", {"engine": {"kind": "ddp"}}),
        ("instruction_hd", {"engine": {"kind": "fsdp2"}, "activation_checkpointing": True}),
    ],
    ids=[
        "alignment, ddp",
        "alignment, fsdp2",
        "instruction, ddp",
        "instruction, fsdp2, recomputed",
        "kept whole",
        "hd, ddp",
        "hd, fsdp2, recomputed",
    ],
)
def test_two_processes_learn_as_one(
    tmp_path: Path, alone: dict[str, tuple[Path, list[float]]], stage: str, changes: dict[str, Any]
) -> None:
    folder, expected = alone[stage]
    assert max(expected) - min(expected) > 0.01  # something was learned
    assert losses_of(tmp_path, stage, 2, **changes) == pytest.approx(expected, rel=WITHIN, abs=WITHIN)
    found = weights_of(tmp_path, stage)
    for name, weight in weights_of(folder, stage).items():
        if not name.endswith("bias"):  # some biases have no gradient but rounding, of which AdamW makes whole steps
            torch.testing.assert_close(found[name], weight, rtol=1e-2, atol=2e-3, msg=name)


def test_features_from_disk_on_two_processes(tmp_path: Path, alone: dict[str, tuple[Path, list[float]]]) -> None:
    """The encoder stays whole on each, so that one may run it while the other reads."""
    cache = {"folder": str(tmp_path / "features"), "max_gb": 1, "dtype": "float32"}
    engine = {"kind": "fsdp2"}
    for again in ("first", "second"):
        found = losses_of(tmp_path / again, "instruction", 2, engine=engine, feature_cache=cache)
        assert found == pytest.approx(alone["instruction"][1], rel=WITHIN, abs=WITHIN)
    assert len(list((tmp_path / "features").glob("*/*/*.safetensors"))) == 5


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        ("fsdp2", 2),
        pytest.param("fsdp2", 4, marks=pytest.mark.slow),
        pytest.param("zero2", 2, marks=tiny_runs.NEEDS_DEEPSPEED),
        pytest.param("zero3", 2, marks=tiny_runs.NEEDS_DEEPSPEED),
    ],
)
def test_a_sharded_run_goes_on_where_it_was_stopped(
    tmp_path: Path, alone: dict[str, tuple[Path, list[float]]], kind: str, after: int
) -> None:
    path = recipe(tmp_path, "instruction", micro_batch_size=1, engine={"kind": kind}, save_every=2)
    run = tiny_runs.start(path, processes=2, pause_after=3)
    run.wait_for_step(3)
    run.signal(signal.SIGTERM)
    stopped = run.end()
    assert stopped[0] == stopped[1], run.said()
    run = tiny_runs.start(path, "--resume", processes=after)
    assert run.end() == [0] * after, run.said()
    found = [loss for _, loss in tiny_runs.losses(path, "0-instruction")]
    assert found == pytest.approx(alone["instruction"][1], rel=WITHIN, abs=WITHIN)


@pytest.mark.parametrize(
    ("kind", "before", "after", "remedy"),
    [
        ("fsdp2", 2, 1, "start 2 or more"),
        ("fsdp2", 1, 2, "start 1,"),
        pytest.param("zero2", 2, 1, "start 2,", marks=tiny_runs.NEEDS_DEEPSPEED),
        pytest.param("zero3", 2, 4, "start 2,", marks=tiny_runs.NEEDS_DEEPSPEED),
    ],
)
def test_shares_that_others_cannot_read_are_refused(
    tmp_path: Path, kind: str, before: int, after: int, remedy: str
) -> None:
    path = recipe(tmp_path, "instruction", micro_batch_size=1, engine={"kind": kind}, save_every=2)
    run = tiny_runs.start(path, processes=before, pause_after=2)
    run.wait_for_step(2)
    run.signal(signal.SIGTERM)
    run.end()
    run = tiny_runs.start(path, "--resume", processes=after)
    assert run.end() == [2] * after, run.said()
    assert f"cannot go on from it: {remedy}" in run.said()
    assert "Traceback" not in run.said()


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        pytest.param(stage, {"engine": {"kind": kind, **engine}, **changes}, marks=tiny_runs.NEEDS_DEEPSPEED)
        for kind in ("zero2", "zero3")
        for stage, engine, changes in [
            ("alignment", {}, {}),
            ("instruction", {}, {"activation_checkpointing": True}),
            ("instruction", {"offload": True}, {}),
            ("instruction_hd", {}, {}),
        ]
    ],
)
def test_deepspeed_learns_as_one_process(
    tmp_path: Path, alone: dict[str, tuple[Path, list[float]]], stage: str, changes: dict[str, Any]
) -> None:
    test_two_processes_learn_as_one(tmp_path, alone, stage, changes)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=tiny_runs.NEEDS_DEEPSPEED) for kind in ("zero2", "zero3")])
def test_deepspeed_goes_from_stage_to_stage(tmp_path: Path, kind: str) -> None:
    engine = f"engine: {{kind: {kind}}}"
    stages = [tiny_runs.with_batch(stage, steps=3) for stage in (tiny_runs.ALIGNMENT, tiny_runs.INSTRUCTION)]
    path = tiny_runs.write_recipe(
        tmp_path, *(f"{stage}, {engine}" for stage in stages), head="export_dtype: bfloat16\n"
    )
    run = tiny_runs.start(path, processes=2)
    assert run.end() == [0, 0], run.said()
    made: Any = FlashSlothForConditionalGeneration.from_pretrained(tmp_path / "out" / "final", dtype="auto")
    assert made.dtype == torch.bfloat16
    stage_2: Any = FlashSlothForConditionalGeneration.from_pretrained(tmp_path / "out" / "1-instruction")
    for name, weight in stage_2.state_dict().items():
        assert torch.equal(made.state_dict()[name], weight.bfloat16()), name
