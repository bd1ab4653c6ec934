"""A run's folder: what lies where in it, what is done, and how far it came.

In: a recipe. Out: paths below its `output`, and what they hold.

    recipe.yaml, run.json     what was trained, from what, with what (`provenance.py`)
    0-alignment/              a whole checkpoint (model, processor), log.json, loss.png, parts.json; of a stage with an
                              adapter, the adapter in the model's place
    0-alignment/steps/        checkpoints of the stage while it runs (`checkpoints.py`)
    final/                    the last stage's model in `export_dtype`, where the recipe says one
"""

from __future__ import annotations

from pathlib import Path

from flashsloth.checkpoint.adapter import is_adapter
from flashsloth.training.checkpoints import step_of, whole
from flashsloth.training.recipe import Recipe
from flashsloth.training.resume import Reached
from flashsloth.training.trainer import STEPS_FOLDER

LOG_NAME, CURVE_NAME, PARTS_NAME = "log.json", "loss.png", "parts.json"
CONFIG_NAME = "config.json"
"""Written last: a stage's folder that has it is whole. Where the stage has an adapter, PEFT's configuration is."""
FINAL_FOLDER = "final"


def existing_run(recipe: Recipe) -> str | None:
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


def reached(recipe: Recipe) -> Reached:
    """How far the run in a recipe's folder came."""
    folders = [stage_folder(recipe, number) for number in range(len(recipe.stages))]
    number = next((number for number, folder in enumerate(folders) if not is_done(folder)), len(folders))
    folder = folders[min(number, len(folders) - 1)]
    checkpoints = whole(folder / STEPS_FOLDER) if number < len(folders) else []
    return Reached(number, step_of(checkpoints[-1]) if checkpoints else 0, folder.name)


def stage_folder(recipe: Recipe, number: int) -> Path:
    """Where a stage leaves what it made."""
    return recipe.output / f"{number}-{recipe.stages[number].stage}"


def is_done(folder: Path) -> bool:
    """Whether a stage's folder is whole."""
    return (folder / CONFIG_NAME).is_file() or is_adapter(folder)
