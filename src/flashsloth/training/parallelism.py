"""How a stage is laid out over devices: one group of keys in the recipe, three engines that exist.

In: a stage's `engine:` group, and the model. Out: the arguments with which transformers' Trainer hands the model to
torch's DDP, torch's FSDP2 or DeepSpeed, by way of accelerate; and, at the end, the whole model again.

One process is one device; `torchrun` starts them. A single process without it trains alone, whatever the engine.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from flashsloth.errors import FlashSlothError
from flashsloth.training import distributed as ranks
from flashsloth.training.recipe_fields import DDP, DEEPSPEED_STAGES, FSDP2, ZERO3, Engine

DEEPSPEED_EXTRA = "pip install deepspeed"
_LEFT_BY_ACCELERATE = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""What accelerate writes into the environment when a stage is sharded; the next one may not be."""
ENCODER = "vision_tower"
"""The module that stays whole on every device while its features are read from disk."""


class ParallelismError(FlashSlothError, ValueError):
    """An engine that cannot do what a recipe asks of it."""


def make_arguments(
    engine: Engine, model: nn.Module, fields: dict[str, Any], *, whole_encoder: bool = False
) -> TrainingArguments:
    """Trainer's arguments for an engine.

    Args:
        engine: of the stage.
        model: that will be trained, not yet handed to Trainer.
        fields: everything else that Trainer is told.
        whole_encoder: keep the vision encoder whole on every device, so that each may run it when it likes.

    Raises:
        ParallelismError: where the engine cannot be had, or cannot do what is asked.
    """
    if ranks.count() == 1:
        return TrainingArguments(**fields)
    check_engine(engine)
    if engine.is_deepspeed:
        return TrainingArguments(**fields, deepspeed=deepspeed_config(engine, bf16=bool(fields.get("bf16"))))
    fields = {**fields, "ddp_backend": ranks.backend()}
    if engine.kind == DDP:
        # Every trained parameter is used in every step, on every device: see model/dummy_inputs.py.
        return TrainingArguments(**fields, ddp_find_unused_parameters=False)
    arguments = TrainingArguments(**fields, fsdp=True, fsdp_config=fsdp_config(engine, model, whole_encoder))
    plugin = arguments.fsdp_plugin_args
    assert plugin is not None
    if fields.get("use_cpu"):
        _let_processors_shard()
    if arguments.bf16:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        # bfloat16 is computed in, gradients are added up in float32, and the loss, which is float32, stays as it is
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        plugin["mixed_precision_policy"] = policy
    if whole_encoder:
        plugin["ignored_modules"] = [module for name, module in model.named_modules() if name.endswith(ENCODER)]
    return arguments


def check_engine(engine: Engine) -> None:
    """Find out before anything starts whether an engine can be had.

    Raises:
        ParallelismError: saying what is not there.
    """
    if ranks.count() == 1:
        return  # a process alone trains alone
    if engine.is_deepspeed:
        from accelerate.utils import is_deepspeed_available

        if not is_deepspeed_available():
            raise ParallelismError(f"engine {engine.kind} needs DeepSpeed, which is not installed: {DEEPSPEED_EXTRA}")
    elif engine.offload and not torch.cuda.is_available():
        raise ParallelismError(
            f"engine {engine.kind} offloads from accelerators, of which there is none: set offload: false"
        )


def fsdp_config(engine: Engine, model: nn.Module, whole_encoder: bool = False) -> dict[str, Any]:
    """What Trainer takes as `fsdp_config`."""
    sharded = [child for name, child in model.named_modules() if not (whole_encoder and ENCODER in name.split("."))]
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": layer_classes(sharded),
        "reshard_after_forward": engine.reshard_after_forward,
        "cpu_offload": engine.offload,
        "state_dict_type": "SHARDED_STATE_DICT",  # torch's distributed checkpoints: any number of processes reads them
    }


def layer_classes(modules: list[nn.Module]) -> list[str]:
    """The classes of transformer layers: what stands in a list of one class, and in no other such layer."""
    stacks = [module for module in modules if isinstance(module, nn.ModuleList) and len(module)]
    layers = [stack[0] for stack in stacks if len({type(layer) for layer in stack}) == 1]
    inner = {id(module) for layer in layers for module in list(layer.modules())[1:]}
    return sorted({type(layer).__name__ for layer in layers if id(layer) not in inner})


def deepspeed_config(engine: Engine, *, bf16: bool) -> dict[str, Any]:
    """DeepSpeed's own configuration; what Trainer knows better is `auto`."""
    zero: dict[str, Any] = {
        "stage": DEEPSPEED_STAGES[engine.kind],
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
    }
    if engine.kind == ZERO3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if engine.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if engine.kind == ZERO3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "bf16": {"enabled": bf16},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # ours is torch's AdamW
        "zero_force_ds_cpu_optimizer": False,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }


def whole_weights(trainer: Any, engine: Engine) -> None:
    """From now on `trainer.save_model` gathers the whole model; before, checkpoints hold each process's share."""
    if engine.kind == FSDP2 and trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")


def release_engine(engine: Engine) -> bool:
    """After a stage, forget what its engine has set for the whole process.

    Returns:
        Whether the model in memory can go on; one in parts has to be loaded again from what the stage saved.
    """
    for variable in _LEFT_BY_ACCELERATE:
        os.environ.pop(variable, None)
    if engine.is_deepspeed:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()
    return ranks.count() == 1 or engine.kind == DDP


def _let_processors_shard() -> None:
    """Have accelerate shard between processes without accelerators, over gloo; torch can, accelerate does not ask it.

    It shards where its state names one of the accelerators it knows, and writes FSDP in that place when it has begun.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU
