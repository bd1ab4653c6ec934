"""A training run: every stage of a recipe, one after the other, on transformers' Trainer.

In: a :class:`~flashsloth.training.recipe.Recipe`. Out: a folder a stage under the recipe's output, each with a whole
checkpoint (model, processor), the log as JSON and the loss curve as a picture; the last one is what the recipe made.
A stage whose checkpoint is there is not run again; one that was interrupted goes on from its last saved step.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.collation import ConversationCollator, PatchCollator
from flashsloth.training.curve import draw_curve
from flashsloth.training.data import conversations, patches
from flashsloth.training.metrics import answer_accuracy, most_likely, patch_accuracy, patch_predictions
from flashsloth.training.optimizer import make_optimizer
from flashsloth.training.patch_classifier import PatchClassifier, patch_loss
from flashsloth.training.recipe import Recipe, StageRun
from flashsloth.training.stages import Stage, freeze_all_but
from flashsloth.training.start import start_model

logger = logging.getLogger(__name__)

LOG_NAME, CURVE_NAME, STEPS_FOLDER = "log.json", "loss.png", "steps"
LOGGING_STEPS = 10


class StageTrainer(Trainer):
    """transformers' Trainer with the stage's optimizer, able to take its data in order: a curriculum is an order."""

    in_order = False
    stage: Stage | None = None

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        assert self.stage is not None
        self.optimizer: Any = make_optimizer(self.model, self.stage)
        return self.optimizer

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        if self.in_order:
            return SequentialSampler(self.train_dataset)
        return super()._get_train_sampler(*args, **kwargs)


def train(recipe: Recipe) -> Path:
    """Run every stage of a recipe.

    Returns:
        The folder of the last stage's checkpoint.

    Raises:
        RecipeError, DataError: for mistakes in the recipe or the data.
    """
    set_seed(recipe.seed)
    model, processor = start_model(recipe.model, recipe.stages[0].attention)
    folder = recipe.output
    for number, stage in enumerate(recipe.stages):
        folder = recipe.output / f"{number}-{stage.stage}"
        if (folder / "config.json").is_file():
            logger.info("stage %s is done: going on from %s", stage.stage, folder)
            model = FlashSlothForConditionalGeneration.from_pretrained(folder, attn_implementation=stage.attention)
            processor = FlashSlothProcessor.from_pretrained(folder)
            continue
        set_seed(recipe.seed + number)
        run_stage(model, processor, stage, folder, recipe.seed)
    if recipe.export_dtype is not None:
        folder = recipe.output / "final"
        model.to(getattr(torch, recipe.export_dtype)).save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def run_stage(
    model: FlashSlothForConditionalGeneration,
    processor: FlashSlothProcessor,
    stage: StageRun,
    folder: Path,
    seed: int,
) -> None:
    """Run one stage and save what it made into `folder`; `model` learns in place."""
    learning = freeze_all_but(model, stage.settings.trains)
    logger.info("stage %s: %.2f M parameters learn", stage.stage, learning / 1e6)
    model.set_attn_implementation(stage.attention)
    if stage.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trainer = _answers_trainer if stage.settings.objective == "answers" else _patches_trainer
    arguments = _arguments(stage, folder, seed)
    weight = stage.settings.patch_loss / arguments.gradient_accumulation_steps  # Trainer adds micro-batches up
    with patch_loss(model, weight) if weight else nullcontext():
        stage_trainer = trainer(model, processor, stage, arguments)
        stage_trainer.in_order, stage_trainer.stage = not stage.shuffle, stage.settings
        stage_trainer.train(resume_from_checkpoint=_last_step(folder))
        if stage.eval_data:
            stage_trainer.evaluate()
    _save(model, processor, folder, stage_trainer, stage.stage)


def _answers_trainer(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, stage: StageRun, arguments: Any
) -> StageTrainer:
    """The trainer of a stage that learns answers."""
    held_out = conversations(stage.eval_data) if stage.eval_data else None
    return StageTrainer(
        model=model,
        args=arguments,
        data_collator=ConversationCollator(processor, stage.settings, stage.attention),
        train_dataset=conversations(stage.data, model.config.patch_grid if stage.settings.patch_loss else None),
        eval_dataset=held_out,
        processing_class=processor,
        preprocess_logits_for_metrics=most_likely,
        compute_metrics=answer_accuracy([held_out[i].kinds for i in range(len(held_out))]) if held_out else None,
    )


def _patches_trainer(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, stage: StageRun, arguments: Any
) -> StageTrainer:
    """The trainer of the encoder's stage."""
    grid = model.config.patch_grid
    arguments.label_names = ["shape", "color", "character", "center"]
    return StageTrainer(
        model=PatchClassifier(model.model),
        args=arguments,
        data_collator=PatchCollator(processor),
        train_dataset=patches(stage.data, grid),
        eval_dataset=patches(stage.eval_data, grid) if stage.eval_data else None,
        preprocess_logits_for_metrics=patch_predictions,
        compute_metrics=patch_accuracy,
    )


def _arguments(stage: StageRun, folder: Path, seed: int) -> TrainingArguments:
    """A stage's settings in Trainer's words."""
    settings = stage.settings
    on_accelerator = torch.cuda.is_available()
    devices = max(1, torch.cuda.device_count()) * int(os.environ.get("WORLD_SIZE", "1"))
    micro = stage.micro_batch_size or settings.batch_size // devices
    if settings.batch_size % (micro * devices):
        raise ValueError(
            f"batch_size {settings.batch_size} is not a multiple of micro_batch_size {micro} times {devices} devices"
        )
    return TrainingArguments(
        output_dir=str(folder / STEPS_FOLDER),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // (micro * devices),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,  # below one, a share of all steps
        max_grad_norm=stage.max_grad_norm,
        num_train_epochs=settings.epochs,
        max_steps=stage.steps or -1,
        bf16=stage.precision == "bf16" or (stage.precision == "auto" and on_accelerator),
        use_cpu=not on_accelerator,
        eval_strategy="steps" if stage.eval_data else "no",
        eval_steps=stage.eval_every,
        save_strategy="steps",
        save_steps=stage.save_every,
        save_total_limit=1,
        logging_steps=LOGGING_STEPS,
        dataloader_num_workers=stage.workers,
        dataloader_persistent_workers=stage.workers > 0,
        dataloader_pin_memory=on_accelerator,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        seed=seed,
        data_seed=seed,
    )


def _last_step(folder: Path) -> str | None:
    """The last checkpoint of an interrupted stage, if there is one."""
    steps = folder / STEPS_FOLDER
    return get_last_checkpoint(str(steps)) if steps.is_dir() else None


def _save(
    model: FlashSlothForConditionalGeneration,
    processor: FlashSlothProcessor,
    folder: Path,
    trainer: Trainer,
    title: str,
) -> None:
    """Log, curve and processor first, the model's config last: a folder with it is complete."""
    if not trainer.is_world_process_zero():
        return
    folder.mkdir(parents=True, exist_ok=True)
    log = trainer.state.log_history
    (folder / LOG_NAME).write_text(json.dumps(log, indent=1), encoding="utf-8")
    draw_curve(log, folder / CURVE_NAME, title)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


__all__ = ["run_stage", "train"]
