"""Engines: what a recipe may say of them, and what Trainer, accelerate and DeepSpeed are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from accelerate.utils import DeepSpeedPlugin, is_deepspeed_available
from tiny import TinyModelMaker
from transformers import TrainingArguments

from flashsloth.training.engine_settings import KINDS, ZERO2, ZERO3, Engine
from flashsloth.training.engines import (
    EngineError,
    deepspeed_config,
    fsdp_config,
    layer_classes,
    let_go,
    make_arguments,
)


@pytest.mark.parametrize(
    ("fields", "optimizer", "message"),
    [
        ({"kind": "ddpp"}, "adamw", "kind is 'ddpp', expected one of ddp, fsdp2, zero2, zero3"),
        ({"offload": True}, "adamw", "offload is true, which ddp cannot: choose fsdp2, zero2 or zero3"),
        ({"kind": "zero3", "reshard_after_forward": False}, "adamw", "only fsdp2 knows, but kind is zero3"),
        ({"kind": "fsdp2"}, "muon", "kind is fsdp2, but muon needs whole matrices on every device"),
    ],
)
def test_what_an_engine_cannot_do(fields: dict[str, Any], optimizer: str, message: str) -> None:
    assert message in str(Engine(**fields).problem(optimizer))


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_can_do(kind: str) -> None:
    assert Engine(kind).problem("adamw") is None
    assert Engine().problem("muon") is None
    assert kind == "ddp" or Engine(kind, offload=True).problem("adamw") is None


def test_a_process_alone_needs_no_engine(make_tiny_model: TinyModelMaker, tmp_path: Any) -> None:
    arguments = make_arguments(Engine(ZERO3), make_tiny_model(), {"output_dir": str(tmp_path), "use_cpu": True})
    assert not arguments.fsdp
    assert not arguments.deepspeed
    assert let_go(Engine(ZERO3))


def test_layers_are_what_is_sharded(make_tiny_model: TinyModelMaker) -> None:
    model = make_tiny_model()
    assert layer_classes(list(model.modules())) == ["PhiDecoderLayer", "SiglipEncoderLayer"]
    config = fsdp_config(Engine("fsdp2"), model, whole_encoder=True)
    assert config["transformer_layer_cls_to_wrap"] == ["PhiDecoderLayer"]


def test_deepspeed_that_is_not_there_is_told(
    make_tiny_model: TinyModelMaker, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: False)
    with pytest.raises(
        EngineError, match="engine zero2 needs DeepSpeed, which is not installed: pip install deepspeed"
    ):
        make_arguments(Engine(ZERO2), make_tiny_model(), {"output_dir": str(tmp_path)})


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize(("kind", "stage"), [(ZERO2, 2), (ZERO3, 3)])
def test_deepspeeds_configuration_is_one_that_accelerate_takes(kind: str, stage: int, offload: bool) -> None:
    config = deepspeed_config(Engine(kind, offload=offload), bf16=True)
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
    filled = HfTrainerDeepSpeedConfig(deepspeed_config(Engine(kind), bf16=True))
    filled.trainer_config_process(arguments)
    filled.trainer_config_finalize(arguments, tiny_model, num_training_steps=10)
    config = filled.config
    let_go(Engine(kind))  # Trainer's configuration holds for the whole process
    assert "auto" not in json.dumps(config)
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_accumulation_steps"] == 3
    assert config["train_batch_size"] == 12
    assert config["gradient_clipping"] == 0.7
    assert config["zero_optimization"]["reduce_bucket_size"] == tiny_model.config.text_config.hidden_size**2
