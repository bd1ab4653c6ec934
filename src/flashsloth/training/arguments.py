"""A stage's settings in Trainer's words.

In: a stage as the recipe says it, and how many devices there are. Out: transformers' `TrainingArguments`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from flashsloth.training import ranks
from flashsloth.training.adapters import check_packages
from flashsloth.training.engines import check_engine, make_arguments
from flashsloth.training.recipe import RecipeError, StageRun

_FLASH = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
"""Implementations of attention -> whether they can be had."""
STEPS_FOLDER = "steps"
"""Where a stage's checkpoints stand while it runs."""


def device_count() -> int:
    """Devices that share a step."""
    return max(ranks.count(), torch.cuda.device_count() if ranks.count() == 1 else 1)


def check_machine(stage: StageRun) -> None:
    """Find out before the first stage whether this machine can do a later one.

    Raises:
        RecipeError: if its batch does not fall into whole micro-batches here, or its attention needs what is not there.
        EngineError, AdapterError: for a package that is not there.
    """
    stage.rows(device_count())
    if not _FLASH.get(stage.attention, lambda: True)():
        raise RecipeError(
            f"stage {stage.stage}: attention is {stage.attention}, whose package is not installed or finds no "
            f"device for it: choose sdpa"
        )
    check_engine(stage.engine)
    if stage.adapter is not None:
        check_packages(stage.adapter)


def training_arguments(stage: StageRun, model: nn.Module, folder: Path, seed: int) -> TrainingArguments:
    """What Trainer is told; `model` is the one that it will train.

    Raises:
        RecipeError: if the batch does not fall into whole micro-batches.
        EngineError: if the stage's engine cannot be had.
    """
    settings = stage.settings
    on_accelerator = torch.cuda.is_available()
    devices = device_count()
    micro = stage.rows(devices)
    fields: dict[str, Any] = {
        "output_dir": str(folder / STEPS_FOLDER),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": settings.batch_size // (micro * devices),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup,  # below one, a share of all steps
        "max_grad_norm": stage.max_grad_norm,
        "num_train_epochs": settings.epochs,
        "max_steps": stage.steps or -1,
        "bf16": stage.precision == "bf16" or (stage.precision == "auto" and on_accelerator),
        "use_cpu": not on_accelerator,
        "eval_strategy": "steps" if stage.eval_data else "no",
        "eval_steps": stage.eval_every,
        "save_strategy": "steps",
        "save_steps": stage.save_every,
        "logging_steps": stage.log_every,
        "logging_nan_inf_filter": False,  # it would hide what the guard stops at
        "disable_tqdm": True,
        "dataloader_num_workers": 0,  # see `data/workers.py`
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "report_to": "none",  # see `reporters.py`
        "run_name": f"{folder.parent.name}/{folder.name}",
        "seed": seed,
        "data_seed": seed,
    }
    arguments = make_arguments(stage.engine, model, fields, whole_encoder=stage.feature_cache is not None)
    if arguments.device.type == "cpu":
        # several processes have cpu:0, to which torch restores no tensors; transformers minds it only since 5.23
        vars(arguments)["_setup_devices"] = torch.device("cpu")
    return arguments


__all__ = ["STEPS_FOLDER", "check_machine", "device_count", "training_arguments"]
