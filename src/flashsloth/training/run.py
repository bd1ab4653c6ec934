"""A training run: every stage of a recipe, one after the other, on transformers' Trainer.

In: a :class:`~flashsloth.training.recipe.Recipe`. Out: a folder, the recipe's `output` (`run_folder.py`).

A stage whose checkpoint is there is not run again; one that was interrupted goes on from its last whole checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import set_seed

from flashsloth.checkpoint.adapter import is_adapter
from flashsloth.checkpoint.merge_adapter import merged_model
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training import distributed
from flashsloth.training.checkpoints import MANIFEST, SaveError, changed, new_files
from flashsloth.training.data import open_source
from flashsloth.training.guards import WeightsError, all_tensors, non_finite_names
from flashsloth.training.init_model import start_model
from flashsloth.training.interruptions import translate_errors
from flashsloth.training.parallelism import release_engine
from flashsloth.training.provenance import RunExistsError, locked_folder, write_record
from flashsloth.training.recipe import Recipe, StageRun
from flashsloth.training.run_folder import CONFIG_NAME, FINAL_FOLDER, existing_run, is_done, stage_folder
from flashsloth.training.run_log import Watcher, check_installed
from flashsloth.training.stage_training import run_stage
from flashsloth.training.trainer import check_machine

logger = logging.getLogger(__name__)


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
            or one that cannot go on with this recipe.
        ParallelismError, AdapterError: for a package that a stage needs and that is not there.
        TrainingStoppedError, SaveError: see `guards.py` and `checkpoints.py`.
        OutageError: for a device without room, or a process that is gone.
        TrainingInterrupted: after SIGTERM or Ctrl-C.
    """
    check_installed(recipe.report_to)
    distributed.start()
    for stage in recipe.stages:
        check_machine(stage)
    with locked_folder(recipe.output):
        found = distributed.first_then_all(lambda: existing_run(recipe))
        if found is not None and not resume:
            raise RunExistsError(found)
        distributed.first_then_all(lambda: _open_data_to_come(recipe))
        write_record(recipe, resumed=found is not None)
        with translate_errors():
            return _train_stages(recipe, watch)


def _train_stages(recipe: Recipe, watch: Watcher | None) -> Path:
    """Every stage that is not done."""
    set_seed(recipe.seed)
    first = recipe.stages[0]
    model, processor = start_model(recipe.model, first.attention, trains_adapter_on=first.adapter is not None)
    folder = recipe.output
    for number, stage in enumerate(recipe.stages):
        folder = stage_folder(recipe, number)
        if distributed.broadcast(is_done(folder)):
            logger.info("stage %s is done: going on from %s", stage.stage, folder)
            # folders of older versions do not say what was written
            if distributed.broadcast((folder / MANIFEST).is_file()) and (fault := changed(folder)):
                raise SaveError(
                    f"{folder} is not whole ({fault}): put it back, or remove the folder to run the stage again"
                )
            model = _made_by(stage, folder)
            processor = FlashSlothProcessor.from_pretrained(folder)
            continue
        set_seed(recipe.seed + number)
        run_stage(model, processor, recipe, number, watch)
        if not release_engine(stage.engine) or stage.adapter is not None:
            model = _made_by(stage, folder)  # the one in memory has PEFT's layers, or is in parts
    if recipe.export_dtype is not None:
        model.to(getattr(torch, recipe.export_dtype))
        too_large, _ = non_finite_names(all_tensors(model))
        if too_large:
            raise WeightsError(
                f"{too_large[0]} holds numbers that {recipe.export_dtype} cannot: {folder} has the whole model in "
                f"float32; export it with export_dtype: bfloat16"
            )
        folder = recipe.output / FINAL_FOLDER
        with new_files(folder, last=CONFIG_NAME) as aside:
            if distributed.is_first():
                model.save_pretrained(aside)
                processor.save_pretrained(aside)
    return folder


def _open_data_to_come(recipe: Recipe) -> None:
    """Open once what later stages will learn from: its mistakes are told before days of training, not after them.

    Shards are left out: they are read whole to be opened.

    Raises:
        DataError: if there is no such file, it holds something else, or none of its first pictures is there.
    """
    folders = [stage_folder(recipe, number) for number in range(len(recipe.stages))]
    waiting = [stage for stage, folder in zip(recipe.stages, folders, strict=True) if not is_done(folder)][1:]
    for source in (source for stage in waiting for source in (*stage.data, *stage.eval_data)):
        if not source.is_drawn and source.shards is None:
            open_source(source)


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
