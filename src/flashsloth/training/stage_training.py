"""The training of one stage: its model made ready, its trainer, and what it leaves.

In: a model and its processor, a recipe, and which of its stages. Out: the model, which has learned in place; the
stage's folder (`run_folder.py`). A stage that was interrupted goes on from its last whole checkpoint. Layers are run
again in backward where the recipe says so, or, for `auto`, where the step would have no room otherwise.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.trainer import TRAINING_ARGS_NAME

from flashsloth.checkpoint.adapter import ADAPTER_CONFIG
from flashsloth.files import whole_file, write_whole
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.planning.machine import available_bytes, readable
from flashsloth.training import distributed
from flashsloth.training.base_trainer import BEST_NAME
from flashsloth.training.checkpoints import last_whole, new_files, step_of
from flashsloth.training.data import conversations, patches
from flashsloth.training.data.overlap import overlap_of
from flashsloth.training.dataloader import (
    ConversationCollator,
    PatchCollator,
    SampleEncoder,
    held_out_kinds,
    training_conversations,
)
from flashsloth.training.encoder_training import PatchClassifier, encoder_options, patch_loss
from flashsloth.training.feature_cache import features_on_disk, read_from
from flashsloth.training.guards import all_tensors
from flashsloth.training.interruptions import TrainingInterrupted
from flashsloth.training.lora import learner_of
from flashsloth.training.metrics import (
    TrainingCost,
    answer_accuracy,
    most_likely,
    patch_accuracy,
    training_cost,
)
from flashsloth.training.parallelism import whole_weights
from flashsloth.training.plan import USABLE, plan_stage
from flashsloth.training.recipe import Recipe, StageRun
from flashsloth.training.recipe_fields import AUTO
from flashsloth.training.run_folder import CONFIG_NAME, CURVE_NAME, LOG_NAME, PARTS_NAME, stage_folder
from flashsloth.training.run_log import Watcher, draw_curve, reporters
from flashsloth.training.stages import freeze_all_but
from flashsloth.training.trainer import STEPS_FOLDER, StageTrainer, training_arguments

logger = logging.getLogger(__name__)

MILLION = 1e6
SEEDS_A_RANK = 1 << 16
"""How far apart the seeds of two processes are: each draws its own dropout."""
LOCAL_WORLD_VARIABLE = "LOCAL_WORLD_SIZE"
"""Where torchrun says how many processes this machine has."""
SMALL_PARAMETERS = 100_000_000
"""A model of fewer keeps its activations wherever it is trained; nothing is worked out for it."""


def recomputes_activations(model: Any, stage: StageRun) -> bool:
    """Whether activation checkpointing is to be used; the same on all processes."""
    if stage.activation_checkpointing != AUTO:
        return bool(stage.activation_checkpointing)
    if model.num_parameters() < SMALL_PARAMETERS or not stage.learns_answers:
        return False
    return distributed.broadcast(_has_no_room(model, stage) if distributed.is_first() else False)


def _has_no_room(model: Any, stage: StageRun) -> bool:
    """In what this process may use: its accelerator's memory, or its share of what is free here."""
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    else:
        memory = available_bytes() // int(os.environ.get(LOCAL_WORLD_VARIABLE, "1"))
    plan = plan_stage(
        model.config,
        stage,
        devices=distributed.count(),
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


@dataclass(frozen=True)
class _Stage:
    """A stage about to run: number `number` of `recipe`, on `model`; `watch` is called at every log line."""

    model: FlashSlothForConditionalGeneration
    processor: FlashSlothProcessor
    recipe: Recipe
    number: int
    watch: Watcher | None

    @property
    def run(self) -> StageRun:
        """As the recipe says it."""
        return self.recipe.stages[self.number]


def run_stage(
    model: FlashSlothForConditionalGeneration,
    processor: FlashSlothProcessor,
    recipe: Recipe,
    number: int,
    watch: Watcher | None = None,
) -> None:
    """Run one stage and save what it made into its folder; `model` learns in place."""
    stage = _Stage(model, processor, recipe, number, watch)
    run, folder = stage.run, stage_folder(recipe, number)
    base_name = str(stage_folder(recipe, number - 1)) if number else recipe.model.path  # None for one made from nothing
    _make_ready(model, run)
    cost = _cost_of(model, run)  # before the arguments: from then on DeepSpeed divides whatever model is made
    arguments = training_arguments(run, model, folder, recipe.seed)
    checkpoint = last_whole(folder / STEPS_FOLDER)
    step = step_of(checkpoint) if checkpoint else 0
    learner = learner_of(model, run, base_name, arguments.bf16, checkpoint)
    weight = run.patch_loss / arguments.gradient_accumulation_steps  # Trainer adds micro-batches up
    with (
        patch_loss(model, weight) if weight else nullcontext(),
        encoder_options(model.model.vision_tower, augment=run.augment, compiled=run.compile_encoder),
        features_on_disk(model, run) as store,
        reporters(recipe.report_to, folder, arguments.run_name, step) as callbacks,
    ):
        trainer = _trainer(stage, learner, arguments, cost)
        if store is not None:
            read_from(store, trainer)
        for callback in callbacks:
            trainer.add_callback(callback)
        # what a checkpoint of as many processes has kept takes this one's place
        set_seed(recipe.seed + number + step + SEEDS_A_RANK * distributed.rank())
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
            step, log = trainer.state.global_step, trainer.state.log_history
            if trainer.stopped_by:
                raise TrainingInterrupted(
                    trainer.stopped_by, step, trainer.state.max_steps, trainer.checkpoint_of(step)
                )
            trainer.check_finite(all_tensors(trainer.model))
            if run.eval_data and not any("eval_loss" in entry and entry["step"] == step for entry in log):
                trainer.evaluate()
            trainer.leave_best()
        finally:
            _write_log(trainer, folder, run.stage)
    _save(learner, processor, trainer, folder)


def _make_ready(model: FlashSlothForConditionalGeneration, run: StageRun) -> None:
    """Free what the stage trains and freeze the rest; its attention, and whether activations are computed again."""
    learning = freeze_all_but(model, run.trains)
    if run.adapter is None:  # which says itself how many
        logger.info("stage %s: %.2f M parameters learn", run.stage, learning / MILLION)
    model.set_attn_implementation(run.attention)
    if recomputes_activations(model, run):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()  # which the stage before may have enabled


def _cost_of(model: FlashSlothForConditionalGeneration, run: StageRun) -> TrainingCost | None:
    """What a batch costs, or None, and why in the log."""
    cost = training_cost(model, answers=run.learns_answers, encoder_runs=run.feature_cache is None)
    if isinstance(cost, str):
        logger.warning("model FLOPs utilisation is not shown: %s", cost)
        return None
    return cost


def _trainer(stage: _Stage, learner: Any, arguments: Any, cost: TrainingCost | None) -> StageTrainer:
    """A stage's trainer; `learner` is the model itself, or what its adapter makes of it."""
    common: dict[str, Any] = {
        "run": stage.run,
        "whole_model": stage.model,
        "cost": cost,
        "matrix_rate": stage.recipe.matrix_rate,
        "watch": stage.watch,
        "args": arguments,
    }
    return _answers_trainer(stage, learner, common) if stage.run.learns_answers else _patches_trainer(stage, common)


def _answers_trainer(stage: _Stage, learner: Any, common: dict[str, Any]) -> StageTrainer:
    """The trainer of a stage that learns answers."""
    run, processor = stage.run, stage.processor
    grid = stage.model.config.patch_grid if run.patch_loss else None
    held_out = conversations(run.eval_data) if run.eval_data else None
    if held_out is not None and distributed.is_first():
        overlap = overlap_of(conversations(run.data), held_out)
        if overlap.samples:
            logger.warning("%s", overlap.warning())
    kinds = [] if held_out is None else held_out_kinds(held_out, SampleEncoder(processor, run))
    return StageTrainer(
        **common,
        model=learner,
        data_collator=ConversationCollator(processor, run, run.attention, run.packing),
        held_out_collator=ConversationCollator(processor, run, run.attention),  # scores are of rows
        train_dataset=training_conversations(run, processor, stage_folder(stage.recipe, stage.number), grid),
        eval_dataset=held_out,
        processing_class=processor,
        preprocess_logits_for_metrics=most_likely,
        compute_metrics=None if held_out is None else answer_accuracy(kinds),
    )


def _patches_trainer(stage: _Stage, common: dict[str, Any]) -> StageTrainer:
    """The trainer of the encoder's stage."""
    run, grid = stage.run, stage.model.config.patch_grid
    common["args"].label_names = ["shape", "color", "character", "center"]
    return StageTrainer(
        **common,
        model=PatchClassifier(stage.model.model),
        data_collator=PatchCollator(stage.processor),
        train_dataset=patches(run.data, grid),
        eval_dataset=patches(run.eval_data, grid) if run.eval_data else None,
        preprocess_logits_for_metrics=most_likely,
        compute_metrics=patch_accuracy,
    )


def _write_log(trainer: StageTrainer, folder: Path, title: str) -> None:
    """The log and its curve, of what was done so far; the table of parts. No reason to lose what ended the run."""
    log = trainer.state.log_history
    if not distributed.is_first() or not log:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / LOG_NAME, json.dumps(log, indent=1))
        write_whole(folder / PARTS_NAME, json.dumps([asdict(row) for row in trainer.report.rows], indent=1))
        if trainer.run.best_by is not None:
            write_whole(folder / BEST_NAME, json.dumps(trainer.best_to_json(), indent=1))
        with whole_file(folder / CURVE_NAME) as unfinished:
            draw_curve(log, unfinished, title)
    except OSError as error:
        logger.warning("the log and its curve could not be written into %s: %s", folder, error)


def _save(model: Any, processor: FlashSlothProcessor, trainer: StageTrainer, folder: Path) -> None:
    """The checkpoint that the stage leaves, or its adapter."""
    last = CONFIG_NAME if trainer.run.adapter is None else ADAPTER_CONFIG
    with new_files(folder, last=last) as aside:
        whole_weights(trainer, trainer.run.engine)
        if trainer.model is model:  # as Trainer does it, so that a sharded model is gathered
            trainer.save_model(str(aside))
        elif distributed.is_first():
            model.save_pretrained(aside)
        if distributed.is_first():
            processor.save_pretrained(aside)
            (aside / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # the recipe says it readably
