"""Whether a stage runs its layers again in backward: what the recipe says, or, for `auto`, what has room.

In: a model and its stage. Out: yes or no, and a line in the log that says why.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

from flashsloth.benchmark.memory import available_bytes
from flashsloth.benchmark.training_plan import USABLE, plan_stage
from flashsloth.benchmark.units import readable
from flashsloth.training import ranks
from flashsloth.training.recipe import AUTO, StageRun

logger = logging.getLogger(__name__)

LOCAL_WORLD_VARIABLE = "LOCAL_WORLD_SIZE"
"""Where torchrun says how many processes this machine has."""
SMALL_PARAMETERS = 100_000_000
"""A model of fewer keeps its activations wherever it is trained; nothing is worked out for it."""


def recomputes_activations(model: Any, stage: StageRun) -> bool:
    """Whether activation checkpointing is to be used; the same on all processes."""
    if stage.activation_checkpointing != AUTO:
        return bool(stage.activation_checkpointing)
    if model.num_parameters() < SMALL_PARAMETERS or not stage.settings.learns_answers:
        return False
    return ranks.told(_has_no_room(model, stage) if ranks.is_first() else False)


def device_bytes() -> int:
    """Memory that one process of this run may use: its accelerator's, or its share of what is free here."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return available_bytes() // int(os.environ.get(LOCAL_WORLD_VARIABLE, "1"))


def _has_no_room(model: Any, stage: StageRun) -> bool:
    memory = device_bytes()
    plan = plan_stage(
        model.config,
        stage,
        devices=ranks.count(),
        memory_bytes=memory,
        half_precision=torch.cuda.is_available(),
    )
    again = plan.activation_checkpointing
    without = (plan.memory_otherwise if again else plan.memory).total
    logger.info(
        "activation checkpointing is %s: without it a device would hold about %s, and may hold %s (%.0f%% of %s)",
        "on" if again else "off",
        readable(without, "B"),
        readable(USABLE * memory, "B"),
        100 * USABLE,
        readable(memory, "B"),
    )
    return again


__all__ = ["device_bytes", "recomputes_activations"]
