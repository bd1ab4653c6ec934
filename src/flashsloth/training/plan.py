"""What training takes on each device, before anything is loaded: memory by part, and the most samples a second.

In: a configuration, and a stage as a recipe has it, over some devices. Out: a :class:`TrainingPlan`.

    activations      `step_memory.py`: the step is run on tensors without numbers, and what lives is counted
    weights,         what the engine leaves on a device of them; AdamW has two float32 numbers for each that learns,
    gradients,       DeepSpeed's in bfloat16 a float32 copy of the weight besides
    optimizer
    communication    what an engine gathers or sends at once: DDP a copy of all gradients, FSDP2 and ZeRO-3 whole layers

Memory that an allocator holds without using it is not counted; so a plan fits where `USABLE` of a device is enough.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loss import ROWS_AT_A_TIME
from flashsloth.planning.flops import ENCODER, Cost
from flashsloth.training.metrics import BatchFacts, TrainingCost
from flashsloth.training.recipe import RecipeError, StageRun
from flashsloth.training.recipe_fields import DDP, FSDP2, NF4, ZERO2, Engine
from flashsloth.training.step_memory import FULL, HALF, MIXED, MicroBatch, StepBytes, meta_learner, step_bytes

TEXT_TOKENS = {"plain": 32, "chat": 310, "published_chat": 310}
"""Template -> text of a sample in tokens, unless told: about a caption's; what makes 400 positions of stage 2."""
USABLE = 0.9
"""Share of a device's memory that a plan may fill."""
FLOAT32, BFLOAT16 = torch.float32.itemsize, torch.bfloat16.itemsize
ADAM_NUMBERS = 2
"""AdamW's averages of the gradient and of its square."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight: four bits; a scale of eight bits for 64 of them; a float32 for 256 scales (QLoRA, section 3)."""
LAYERS_AT_A_TIME = 2
"""That FSDP2 and ZeRO-3 have whole: the one that is computed, and the next."""
LOGIT_COPIES = 4
"""Of a chunk's logits, in float32: themselves, their softmax, the gradient; and in bfloat16, two of these."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a device by part, when most is held; `host`, what is kept in the processor's memory for it, apart."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    communication: int
    host: int = 0

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return sum(dataclasses.astuple(self)) - self.host


@dataclass(frozen=True)
class TrainingPlan:
    """What a stage takes.

    Attributes:
        stage: its name.
        engine: how it is laid out.
        devices: how many.
        batch: samples an optimizer step, over all devices and accumulation.
        micro_batch: what a device has at a time.
        positions: of each row.
        parameters, learning: numbers in all, and those that learn.
        activation_checkpointing: whether layers are run again in backward.
        memory: of each device, that way.
        memory_otherwise: the other way.
        logits: bytes of the largest chunk of logits, a part of the activations.
        flops: of a sample, recomputation and all.
    """

    stage: str
    engine: Engine
    devices: int
    batch: int
    micro_batch: MicroBatch
    positions: int
    parameters: int
    learning: int
    activation_checkpointing: bool
    memory: TrainingMemory
    memory_otherwise: TrainingMemory
    logits: int
    flops: float

    def fits(self, memory_bytes: int) -> bool:
        """Whether a device of that size is enough."""
        return self.memory.total <= USABLE * memory_bytes

    def samples_per_second(self, matrix_rate: float) -> float:
        """The most there can be on all devices, each doing so many operations a second."""
        return self.devices * matrix_rate / self.flops

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        totals = {"total": self.memory.total, "total_otherwise": self.memory_otherwise.total}
        return {**dataclasses.asdict(self), "engine": self.engine.model_dump(), **totals}


def plan_stage(
    config: FlashSlothConfig,
    stage: StageRun,
    *,
    devices: int = 1,
    memory_bytes: int | None = None,
    text_tokens: int | None = None,
    pictures: int = 1,
    half_precision: bool = True,
) -> TrainingPlan:
    """Work out what a stage takes.

    Args:
        config: of the model.
        stage: as the recipe has it; one that learns answers.
        devices: that share its batch.
        memory_bytes: of each, by which `activation_checkpointing: auto` is decided; None: with it.
        text_tokens: of each sample; None for :data:`TEXT_TOKENS`.
        pictures: of each sample.
        half_precision: what `precision: auto` means on the device.

    Raises:
        RecipeError: for a stage that learns no answers, or a batch that the devices cannot share.
    """
    if not stage.learns_answers:
        raise RecipeError(f"stage {stage.stage} learns patches, and only stages that learn answers are planned")
    batch = MicroBatch(
        rows=stage.rows(devices),
        text_tokens=TEXT_TOKENS[stage.template] if text_tokens is None else text_tokens,
        pictures=pictures,
        has_queries=stage.template != "plain",
    )
    is_half = stage.precision == "bf16" or (stage.precision == "auto" and half_precision)
    engine = stage.engine if devices > 1 else Engine()
    both = {again: _step(config, stage, batch, engine, is_half, again) for again in (False, True)}
    memory = {again: _memory(step, config, stage, engine, devices, is_half) for again, step in both.items()}
    again = stage.activation_checkpointing
    if again == "auto":
        again = memory_bytes is None or memory[False].total > USABLE * memory_bytes
    flops, recomputed = sample_flops(config, stage, batch)
    logits = min(ROWS_AT_A_TIME, batch.rows * batch.text_tokens) * config.text_config.vocab_size
    return TrainingPlan(
        stage=stage.stage,
        engine=engine,
        devices=devices,
        batch=stage.batch_size,
        micro_batch=batch,
        positions=batch.positions(config),
        parameters=both[False].parameters,
        learning=both[False].learning,
        activation_checkpointing=bool(again),
        memory=memory[bool(again)],
        memory_otherwise=memory[not again],
        logits=logits * FLOAT32 * LOGIT_COPIES,
        flops=flops + (recomputed if again else 0.0),
    )


def _step(
    config: FlashSlothConfig, stage: StageRun, batch: MicroBatch, engine: Engine, is_half: bool, again: bool
) -> StepBytes:
    computing = FULL if not is_half else MIXED if engine.kind == DDP else HALF
    return step_bytes(
        config,
        stage.trains,
        batch,
        computing=computing,
        activation_checkpointing=again,
        adapter=stage.adapter,
        attention=stage.attention,
        encodes=stage.feature_cache is None,
    )


def _memory(
    step: StepBytes, config: FlashSlothConfig, stage: StageRun, engine: Engine, devices: int, is_half: bool
) -> TrainingMemory:
    """Of one device: what the engine leaves on it."""
    computed = BFLOAT16 if is_half else FLOAT32
    gathered = (LAYERS_AT_A_TIME * step.largest_layer + step.outside_layers) * computed
    adam = step.learning * ADAM_NUMBERS * FLOAT32
    activations = step.activations
    if engine.kind == DDP:
        weights, gradients = step.weights, step.learning * FLOAT32
        communication = gradients if devices > 1 else 0
        if stage.adapter is not None and stage.adapter.quantize == NF4:
            weights, unpacked = _in_four_bits(weights, config, computed)
            activations += unpacked
        return TrainingMemory(weights, gradients, adam, activations, communication)
    if engine.kind == FSDP2:
        if not engine.reshard_after_forward:
            gathered = step.parameters * computed
        weights, gradients = step.parameters * FLOAT32, step.learning * FLOAT32
        gathered += step.largest_layer * FLOAT32  # gradients of one layer, before each device has its share
    else:
        weights, gradients = step.parameters * computed, step.learning * computed
        adam += step.learning * FLOAT32 * is_half
    shared = {"weights": weights, "gradients": gradients, "optimizer": adam}
    if engine.kind == ZERO2:
        gathered = 0
    parts = {name: -(-size // devices) for name, size in shared.items()}
    if engine.kind == ZERO2:
        parts["weights"] = weights
    off = ("optimizer",) if engine.kind == ZERO2 else tuple(parts)
    host = sum(parts[name] for name in off) if engine.offload else 0
    kept = {name: 0 if engine.offload and name in off else size for name, size in parts.items()}
    return TrainingMemory(**kept, activations=activations, communication=gathered, host=host)


def _in_four_bits(weights: int, config: FlashSlothConfig, computed: int) -> tuple[int, int]:
    """Bytes of all weights when the decoder's matrices have four bits, and of the largest one unpacked."""
    matrices = Cost.of(config).language_model.matrices
    count = sum(matrix.size for matrix in matrices)
    return weights - round(count * (computed - NF4_BYTES)), max(matrix.size for matrix in matrices) * computed


def sample_flops(config: FlashSlothConfig, stage: StageRun, batch: MicroBatch) -> tuple[float, float]:
    """Of one sample: what is needed, and what activation checkpointing does again."""
    model, _ = meta_learner(config, stage.trains, adapter=stage.adapter)
    cost = TrainingCost(model, answers=True)
    positions = batch.positions(config)
    pictures = 0 if stage.feature_cache is not None else batch.pictures
    facts = BatchFacts((), 1, (positions,), batch.text_tokens, batch.pictures)
    look = cost.cost.encode_flops(batch.pictures)[ENCODER]
    needed = cost.flops(facts) - (cost.factors[ENCODER] * look if pictures != batch.pictures else 0.0)
    again = cost.cost.language_model.flops(positions, positions)
    return needed, float(again + (look if cost.factors[ENCODER] > 1 else 0))
