"""A training run: every stage of a recipe, one after the other, on transformers' Trainer.

In: a :class:`~flashsloth.training.recipe.Recipe`. Out: a folder, the recipe's `output`:

    recipe.yaml, run.json     what was trained, from what, with what (`record.py`)
    0-alignment/              a whole checkpoint (model, processor), log.json, loss.png, parts.json; of a stage with an
                              adapter, the adapter in the model's place
    0-alignment/steps/        checkpoints of the stage while it runs (`checkpoints.py`)
    final/                    the last stage's model in `export_dtype`, where the recipe says one

A stage whose checkpoint is there is not run again; one that was interrupted goes on from its last whole checkpoint.
"""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.trainer import TRAINING_ARGS_NAME

from flashsloth.adapters.folder import ADAPTER_CONFIG, is_adapter
from flashsloth.adapters.merging import merged_model
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training import ranks
from flashsloth.training.adapters import learner_of
from flashsloth.training.arguments import STEPS_FOLDER, training_arguments
from flashsloth.training.checkpoints import PREFIX, last_whole, new_files, step_of, whole
from flashsloth.training.collation import ConversationCollator, PatchCollator
from flashsloth.training.curve import draw_curve
from flashsloth.training.data import conversations, patches
from flashsloth.training.encoder_options import encoder_options
from flashsloth.training.engines import let_go, whole_weights
from flashsloth.training.feature_store import features_on_disk, read_from
from flashsloth.training.memory import recomputes_activations
from flashsloth.training.metrics import answer_accuracy, most_likely, patch_accuracy, patch_predictions
from flashsloth.training.patch_classifier import PatchClassifier, patch_loss
from flashsloth.training.progress import Watcher
from flashsloth.training.recipe import Recipe, StageRun
from flashsloth.training.record import RunExistsError, alone_in, write_record
from flashsloth.training.reporters import check_installed, reporters
from flashsloth.training.stage_data import training_conversations
from flashsloth.training.stages import freeze_all_but
from flashsloth.training.start import start_model
from flashsloth.training.stop import TrainingInterrupted
from flashsloth.training.throughput import TrainingCost, training_cost
from flashsloth.training.trainer import StageTrainer

logger = logging.getLogger(__name__)

LOG_NAME, CURVE_NAME, PARTS_NAME = "log.json", "loss.png", "parts.json"
CONFIG_NAME = "config.json"
"""Written last: a stage's folder that has it is whole. Where the stage has an adapter, PEFT's configuration is."""
FINAL_FOLDER = "final"
SEEDS_A_RANK = 1 << 16
"""How far apart the seeds of two processes are: each draws its own dropout."""


@dataclass
class Running:
    """What the stages of a run have in common.

    Attributes:
        recipe: the whole of it.
        watch: called at every log line, on the first process; None to log them.
    """

    recipe: Recipe
    watch: Watcher | None


def train(recipe: Recipe, *, resume: bool = False, watch: Watcher | None = None) -> Path:
    """Run every stage of a recipe.

    Args:
        recipe: what to train on what.
        resume: go on with what is in the recipe's `output`; where nothing is, start.
        watch: called at every log line.

    Returns:
        The folder of the last stage's checkpoint.

    Raises:
        RecipeError, DataError: for mistakes in the recipe or the data, a run that is there already (without `resume`),
            or one that began with another recipe.
        TrainingStoppedError, SaveError: see `guards.py` and `checkpoints.py`.
        TrainingInterrupted: after SIGTERM or Ctrl-C.
    """
    check_installed(recipe.report_to)
    ranks.start()
    with alone_in(recipe.output):
        found = ranks.first_then_all(lambda: what_is_there(recipe))
        if found is not None and not resume:
            raise RunExistsError(found)
        write_record(recipe, resumed=found is not None)
        return _train_stages(recipe, watch)


def _train_stages(recipe: Recipe, watch: Watcher | None) -> Path:
    """Every stage that is not done."""
    set_seed(recipe.seed)
    running = Running(recipe, watch)
    model, processor = start_model(recipe.model, recipe.stages[0].attention)
    folder = recipe.output
    for number, stage in enumerate(recipe.stages):
        folder = stage_folder(recipe, number)
        if ranks.told(is_done(folder)):
            logger.info("stage %s is done: going on from %s", stage.stage, folder)
            model = _made_by(stage, folder)
            processor = FlashSlothProcessor.from_pretrained(folder)
            continue
        set_seed(recipe.seed + number)
        run_stage(model, processor, running, number)
        if not let_go(stage.engine) or stage.adapter is not None:
            model = _made_by(stage, folder)  # the one in memory has PEFT's layers, or is in parts
    if recipe.export_dtype is not None:
        folder = recipe.output / FINAL_FOLDER
        model.to(getattr(torch, recipe.export_dtype))
        with new_files(folder, last=CONFIG_NAME) as aside:
            if ranks.is_first():
                model.save_pretrained(aside)
                processor.save_pretrained(aside)
    return folder


def run_stage(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, running: Running, number: int
) -> None:
    """Run one stage and save what it made into its folder; `model` learns in place."""
    recipe, stage = running.recipe, running.recipe.stages[number]
    folder = stage_folder(recipe, number)
    learning = freeze_all_but(model, stage.settings.trains)
    logger.info("stage %s: %.2f M parameters learn", stage.stage, learning / 1e6)
    model.set_attn_implementation(stage.attention)
    if recomputes_activations(model, stage):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()  # which the stage before may have enabled
    cost = training_cost(
        model, answers=stage.settings.objective == "answers", encoder_runs=stage.feature_cache is None
    )  # before the arguments: once they are made, DeepSpeed divides whatever model is made, also one without numbers
    if isinstance(cost, str):
        logger.warning("model FLOPs utilisation is not shown: %s", cost)
    arguments = training_arguments(stage, model, folder, recipe.seed)
    base_name = str(stage_folder(recipe, number - 1)) if number else recipe.model.path
    checkpoint = last_whole(folder / STEPS_FOLDER)
    learner = learner_of(model, stage, base_name, arguments.bf16, checkpoint)
    weight = stage.settings.patch_loss / arguments.gradient_accumulation_steps  # Trainer adds micro-batches up
    encoder = model.model.vision_tower
    with (
        patch_loss(model, weight) if weight else nullcontext(),
        encoder_options(encoder, augment=stage.augment, compiled=stage.compile_encoder),
        features_on_disk(model, stage) as store,
    ):
        trainer = _trainer(
            model, learner, processor, running, number, arguments, None if isinstance(cost, str) else cost
        )
        if store is not None:
            read_from(store, trainer)
        step = step_of(checkpoint) if checkpoint else 0
        for reporter in reporters(recipe.report_to, folder, step):
            trainer.add_callback(reporter)
        # what a checkpoint of as many processes has kept takes this one's place
        set_seed(recipe.seed + number + step + SEEDS_A_RANK * ranks.rank())
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
            _leave_if_asked(trainer)
            if stage.eval_data and not _is_evaluated(trainer):
                trainer.evaluate()
        finally:
            _write_log(trainer, folder, stage.stage)
    _save(learner, processor, trainer, folder)


def what_is_there(recipe: Recipe) -> str | None:
    """What a recipe's folder holds of a run, and what to do about it; None for nothing that was learned."""
    folders = [stage_folder(recipe, number) for number in range(len(recipe.stages))]
    other = "start another with --set output=..., or remove the folder"
    if is_done(folders[-1]) and (recipe.export_dtype is None or is_done(recipe.output / FINAL_FOLDER)):
        return f"{recipe.output} holds a finished run: use it as it is, {other}"
    current = next((folder for folder in folders if not is_done(folder)), folders[-1])
    checkpoints = whole(current / STEPS_FOLDER)
    if not checkpoints and current is folders[0]:
        return None  # what was begun there has come to no checkpoint
    where = f"step {step_of(checkpoints[-1])}" if checkpoints else "its beginning"
    return f"{recipe.output} holds a run that stopped in {current.name}: go on from {where} with --resume, {other}"


def stage_folder(recipe: Recipe, number: int) -> Path:
    """Where a stage leaves what it made."""
    return recipe.output / f"{number}-{recipe.stages[number].stage}"


def is_done(folder: Path) -> bool:
    """Whether a stage's folder is whole."""
    return (folder / CONFIG_NAME).is_file() or is_adapter(folder)


def _made_by(stage: StageRun, folder: Path) -> FlashSlothForConditionalGeneration:
    """The model of a finished stage, its adapter folded in, in float32."""
    if is_adapter(folder):
        model = merged_model(folder).float()
        model.set_attn_implementation(stage.attention)
        return model
    whole_model: FlashSlothForConditionalGeneration = FlashSlothForConditionalGeneration.from_pretrained(
        folder, attn_implementation=stage.attention
    )
    return whole_model


def _trainer(
    model: FlashSlothForConditionalGeneration,
    learner: Any,
    processor: FlashSlothProcessor,
    running: Running,
    number: int,
    arguments: Any,
    cost: TrainingCost | None,
) -> StageTrainer:
    """A stage's trainer; `learner` is the model itself, or what its adapter makes of it."""
    stage = running.recipe.stages[number]
    common: dict[str, Any] = {
        "run": stage,
        "whole_model": model,
        "cost": cost,
        "matrix_rate": running.recipe.matrix_rate,
        "watch": running.watch,
        "args": arguments,
    }
    if stage.settings.objective == "answers":
        return _answers_trainer(model, learner, processor, stage, stage_folder(running.recipe, number), common)
    return _patches_trainer(model, processor, stage, common)


def _answers_trainer(
    model: FlashSlothForConditionalGeneration,
    learner: Any,
    processor: FlashSlothProcessor,
    stage: StageRun,
    folder: Path,
    common: dict[str, Any],
) -> StageTrainer:
    """The trainer of a stage that learns answers."""
    grid = model.config.patch_grid if stage.settings.patch_loss else None
    held_out = conversations(stage.eval_data) if stage.eval_data else None
    return StageTrainer(
        **common,
        model=learner,
        data_collator=ConversationCollator(processor, stage.settings, stage.attention, stage.packing),
        train_dataset=training_conversations(stage, processor, folder, grid),
        eval_dataset=held_out,
        processing_class=processor,
        preprocess_logits_for_metrics=most_likely,
        compute_metrics=answer_accuracy([held_out[i].kinds for i in range(len(held_out))]) if held_out else None,
    )


def _patches_trainer(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, stage: StageRun, common: dict[str, Any]
) -> StageTrainer:
    """The trainer of the encoder's stage."""
    grid = model.config.patch_grid
    common["args"].label_names = ["shape", "color", "character", "center"]
    return StageTrainer(
        **common,
        model=PatchClassifier(model.model),
        data_collator=PatchCollator(processor),
        train_dataset=patches(stage.data, grid),
        eval_dataset=patches(stage.eval_data, grid) if stage.eval_data else None,
        preprocess_logits_for_metrics=patch_predictions,
        compute_metrics=patch_accuracy,
    )


def _leave_if_asked(trainer: StageTrainer) -> None:
    """Raise what tells the command that a signal ended the run."""
    if trainer.stopped_by:
        checkpoint = Path(trainer.args.output_dir) / f"{PREFIX}{trainer.state.global_step}"
        raise TrainingInterrupted(trainer.stopped_by, trainer.state.global_step, trainer.state.max_steps, checkpoint)


def _is_evaluated(trainer: StageTrainer) -> bool:
    """Whether the last step was evaluated."""
    step = trainer.state.global_step
    return any("eval_loss" in entry and entry["step"] == step for entry in trainer.state.log_history)


def _write_log(trainer: StageTrainer, folder: Path, title: str) -> None:
    """The log and its curve, of what was done so far; the table of parts."""
    log = trainer.state.log_history
    if not ranks.is_first() or not log:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG_NAME).write_text(json.dumps(log, indent=1), encoding="utf-8")
    (folder / PARTS_NAME).write_text(json.dumps(trainer.report.to_json(), indent=1), encoding="utf-8")
    draw_curve(log, folder / CURVE_NAME, title)


def _save(model: Any, processor: FlashSlothProcessor, trainer: StageTrainer, folder: Path) -> None:
    """The checkpoint that the stage leaves, or its adapter."""
    last = CONFIG_NAME if trainer.run.adapter is None else ADAPTER_CONFIG
    with new_files(folder, last=last) as aside:
        whole_weights(trainer, trainer.run.engine)
        if trainer.model is model:  # as Trainer does it, so that a sharded model is gathered
            trainer.save_model(str(aside))
        elif ranks.is_first():
            model.save_pretrained(aside)
        if ranks.is_first():
            processor.save_pretrained(aside)
            (aside / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # the recipe says it readably


__all__ = ["RunExistsError", "Running", "is_done", "run_stage", "stage_folder", "train", "what_is_there"]
