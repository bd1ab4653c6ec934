"""Training's plan: what each engine leaves on a device, and when activations are recomputed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_shapes import flashsloth

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.training import plan as training_plan
from flashsloth.training.optimizer import make_optimizer
from flashsloth.training.plan import USABLE, plan_stage
from flashsloth.training.recipe import RecipeError, StageRun, load_recipe
from flashsloth.training.stages import freeze_all_but
from flashsloth.training.step_memory import StepBytes, step_bytes

DEVICES = 4
_STEPS: dict[str, StepBytes] = {}


@pytest.fixture(autouse=True)
def _a_step_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines differ in what they make of a step's bytes, not in these."""

    def counted(config: FlashSlothConfig, *arguments: Any, **options: Any) -> StepBytes:
        key = repr((config.to_json_string(), arguments, options))
        if key not in _STEPS:
            _STEPS[key] = step_bytes(config, *arguments, **options)
        return _STEPS[key]

    monkeypatch.setattr(training_plan, "step_bytes", counted)


def stage(tmp_path: Path, **keys: Any) -> StageRun:
    keys = {"stage": "instruction", "template": "chat", "batch_size": 16, "micro_batch_size": 2, **keys}
    file = tmp_path / "recipe.yaml"
    file.write_text(
        json.dumps({"model": {"path": "x"}, "stages": [{**keys, "data": [{"world": 1, "count": 9}]}]}), encoding="utf-8"
    )
    return load_recipe(file).stages[0]


def test_weights_gradients_and_optimizer_are_those_of_a_real_step(tmp_path: Path) -> None:
    config, run = flashsloth(), stage(tmp_path, precision="float32")
    plan = plan_stage(config, run, text_tokens=20)
    model = FlashSlothForConditionalGeneration(config)
    freeze_all_but(model, run.trains)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(model, run)
    optimizer.step()
    averages = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert plan.memory.weights == sum(parameter.nbytes for parameter in model.parameters())
    assert plan.memory.gradients == sum(parameter.grad.nbytes for parameter in learning if parameter.grad is not None)
    assert plan.memory.optimizer == sum(value.nbytes for value in averages)
    assert plan.memory.communication == 0
    assert (plan.parameters, plan.learning) == (model.num_parameters(), sum(p.numel() for p in learning))


@pytest.mark.parametrize("kind", ["ddp", "fsdp2", "zero2", "zero3"])
def test_what_an_engine_leaves_on_a_device(tmp_path: Path, kind: str) -> None:
    config = flashsloth()
    plan = plan_stage(config, stage(tmp_path, engine={"kind": kind}), devices=DEVICES, text_tokens=20)
    memory, all_of_it, learning = plan.memory, plan.parameters, plan.learning
    shares = {
        "ddp": (4 * all_of_it, 4 * learning, 8 * learning),
        "fsdp2": (4 * all_of_it / DEVICES, 4 * learning / DEVICES, 8 * learning / DEVICES),
        "zero2": (2 * all_of_it, 2 * learning / DEVICES, 12 * learning / DEVICES),
        "zero3": (2 * all_of_it / DEVICES, 2 * learning / DEVICES, 12 * learning / DEVICES),
    }
    assert (memory.weights, memory.gradients, memory.optimizer) == pytest.approx(shares[kind], abs=1)
    assert (memory.communication > 0) == (kind != "zero2")
    assert memory.total == sum(dataclasses.astuple(memory)) - memory.host
    alone = plan_stage(config, stage(tmp_path, engine={"kind": kind}), text_tokens=20)
    assert alone.memory.weights == 4 * all_of_it  # one process trains alone, whatever the engine


@pytest.mark.parametrize(("kind", "on_device"), [("fsdp2", 0), ("zero3", 0), ("zero2", 1)])
def test_what_is_offloaded(tmp_path: Path, kind: str, on_device: int) -> None:
    engine = {"kind": kind, "offload": True}
    memory = plan_stage(flashsloth(), stage(tmp_path, engine=engine), devices=DEVICES, text_tokens=20).memory
    assert memory.optimizer == 0
    assert (memory.weights > 0) == bool(on_device)
    assert memory.host > 0


def test_activations_are_recomputed_where_they_have_no_room(tmp_path: Path) -> None:
    config, run = flashsloth(), stage(tmp_path, activation_checkpointing="auto")
    roomy = plan_stage(config, run, memory_bytes=10**12, text_tokens=200)
    assert not roomy.activation_checkpointing
    tight = plan_stage(config, run, memory_bytes=int(roomy.memory.total / USABLE) - 1, text_tokens=200)
    assert tight.activation_checkpointing
    assert tight.memory_otherwise == roomy.memory
    assert tight.memory.total < roomy.memory.total
    assert tight.flops > roomy.flops
    assert plan_stage(config, run, text_tokens=200).activation_checkpointing  # nobody knows how much room there is
    forced = run.model_copy(update={"activation_checkpointing": False})
    assert not plan_stage(config, forced, memory_bytes=1, text_tokens=200).activation_checkpointing


def test_four_bits_take_less(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    plans = [
        plan_stage(flashsloth(), stage(tmp_path, adapter={"rank": 2, "quantize": bits}), text_tokens=20)
        for bits in ("none", "nf4")
    ]
    assert plans[1].memory.weights < plans[0].memory.weights
    assert plans[0].learning == plans[1].learning


def test_the_published_work_of_a_sample(tmp_path: Path) -> None:
    """As worked out by hand: 1.8 TFLOP in stage 1, 7.1 in stage 2 at 400 positions; and 400 it is."""
    from flashsloth.model.configuration_flashsloth import FlashSlothConfig
    from flashsloth.training.plan import TEXT_TOKENS, sample_flops
    from flashsloth.training.step_memory import MicroBatch

    config = FlashSlothConfig()
    found = {}
    for name, template, queries in (("alignment", "plain", False), ("instruction", "chat", True)):
        batch = MicroBatch(1, TEXT_TOKENS[template], 1, queries)
        found[name] = (
            batch.positions(config),
            sample_flops(config, stage(tmp_path, stage=name, template=template), batch),
        )
    assert found["alignment"][1][0] == pytest.approx(1.81e12, rel=0.02)
    assert found["instruction"][0] == 400
    assert found["instruction"][1][0] == pytest.approx(7.1e12, rel=0.02)


def test_speed_is_bound_by_all_devices(tmp_path: Path) -> None:
    plan = plan_stage(flashsloth(), stage(tmp_path), devices=DEVICES, text_tokens=20)
    assert plan.samples_per_second(1e12) == pytest.approx(DEVICES * 1e12 / plan.flops)
    assert json.loads(json.dumps(plan.to_dict()))["total"] == plan.memory.total


def test_what_cannot_be_planned(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="stage encoder learns patches"):
        plan_stage(flashsloth(), stage(tmp_path, stage="encoder"))
    with pytest.raises(RecipeError, match="batch_size 16 is not a multiple of micro_batch_size 2 times 3 devices"):
        plan_stage(flashsloth(), stage(tmp_path), devices=3)
