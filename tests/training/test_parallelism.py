"""Engines: what a recipe may say of them, and what Trainer, accelerate and DeepSpeed are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import DeepSpeedPlugin, is_deepspeed_available
from tiny import TinyModelMaker
from transformers import TrainingArguments

from flashsloth.training.parallelism import (
    ParallelismError,
    deepspeed_config,
    fsdp_config,
    layer_classes,
    make_arguments,
    release_engine,
)
from flashsloth.training.recipe import RecipeError, load_recipe
from flashsloth.training.recipe_fields import KINDS, ZERO2, ZERO3, Engine
from tests.training import tiny_runs


@pytest.mark.parametrize(
    ("engine", "optimizer", "message"),
    [
        ("{kind: ddpp}", "adamw", 'kind: found "ddpp", expected ddp, fsdp2, zero2 or zero3'),
        ("{offload: true}", "adamw", "offload: found true, which ddp cannot: choose fsdp2, zero2 or zero3"),
        ("{kind: zero3, reshard_after_forward: false}", "adamw", "only fsdp2 knows, but kind is zero3"),
        ("{kind: fsdp2}", "muon", "kind: found fsdp2, but muon needs whole matrices on every device"),
    ],
)
def test_what_an_engine_cannot_do(tmp_path: Path, engine: str, optimizer: str, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        with_engine(tmp_path, engine, optimizer)
    assert "stages.alignment.engine." in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_can_do(tmp_path: Path, kind: str) -> None:
    offload = str(kind != "ddp").lower()
    assert with_engine(tmp_path, f"{{kind: {kind}, offload: {offload}}}", "adamw") == Engine(
        kind=kind, offload=kind != "ddp"
    )
    assert with_engine(tmp_path, "null", "muon") == Engine()


def with_engine(folder: Path, engine: str, optimizer: str) -> Engine:
    """A recipe's engine."""
    stage = f"{tiny_runs.ALIGNMENT}, optimizer: {optimizer}, engine: {engine}"
    return load_recipe(tiny_runs.write_recipe(folder, stage)).stages[0].engine


def test_a_process_alone_needs_no_engine(make_tiny_model: TinyModelMaker, tmp_path: Any) -> None:
    arguments = make_arguments(Engine(kind=ZERO3), make_tiny_model(), {"output_dir": str(tmp_path), "use_cpu": True})
    assert not arguments.fsdp
    assert not arguments.deepspeed
    assert release_engine(Engine(kind=ZERO3))


def test_layers_are_what_is_sharded(make_tiny_model: TinyModelMaker) -> None:
    model = make_tiny_model()
    assert layer_classes(list(model.modules())) == ["PhiDecoderLayer", "SiglipEncoderLayer"]
    config = fsdp_config(Engine(kind="fsdp2"), model, whole_encoder=True)
    assert config["transformer_layer_cls_to_wrap"] == ["PhiDecoderLayer"]


def test_deepspeed_that_is_not_there_is_told(
    make_tiny_model: TinyModelMaker, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: False)
    with pytest.raises(
        ParallelismError, match="engine zero2 needs DeepSpeed, which is not installed: pip install deepspeed"
    ):
        make_arguments(Engine(kind=ZERO2), make_tiny_model(), {"output_dir": str(tmp_path)})


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize(("kind", "stage"), [(ZERO2, 2), (ZERO3, 3)])
def test_deepspeeds_configuration_is_one_that_accelerate_takes(kind: str, stage: int, offload: bool) -> None:
    config = deepspeed_config(Engine(kind=kind, offload=offload), bf16=True)
    assert json.loads(json.dumps(config)) == config
    plugin = DeepSpeedPlugin(hf_ds_config=config)
    assert plugin.zero_stage == stage
    assert plugin.hf_ds_config.is_zero3() == (stage == 3)
    assert plugin.offload_optimizer_device == ("cpu" if offload else "none")
    assert plugin.offload_param_device == ("cpu" if offload and stage == 3 else "none")
    assert plugin.zero3_save_16bit_model == (stage == 3)


@pytest.mark.skipif(
    not is_deepspeed_available(), reason="Trainer reads DeepSpeed's configuration only beside DeepSpeed"
)
@pytest.mark.parametrize("kind", [ZERO2, ZERO3])
def test_trainer_fills_in_what_it_knows_better(kind: str, tiny_model: Any, tmp_path: Any) -> None:
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        max_grad_norm=0.7,
        bf16=True,
        use_cpu=True,
        report_to=[],
    )
    filled = HfTrainerDeepSpeedConfig(deepspeed_config(Engine(kind=kind), bf16=True))
    filled.trainer_config_process(arguments)
    filled.trainer_config_finalize(arguments, tiny_model, num_training_steps=10)
    config = filled.config
    release_engine(Engine(kind=kind))  # Trainer's configuration holds for the whole process
    assert "auto" not in json.dumps(config)
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_accumulation_steps"] == 3
    assert config["train_batch_size"] == 12
    assert config["gradient_clipping"] == 0.7
    assert config["zero_optimization"]["reduce_bucket_size"] == tiny_model.config.text_config.hidden_size**2
