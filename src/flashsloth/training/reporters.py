"""Where the log goes beside the run's folder: TensorBoard, and Weights & Biases where it is installed.

In: a recipe's `report_to`, and the stage's folder. Out: transformers' own callbacks for them. TensorBoard's files are
put into the stage's folder; what a run that was killed wrote after its last checkpoint is hidden once it goes on.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flashsloth.training import ranks
from flashsloth.training.recipe import RecipeError

TENSORBOARD, WANDB = "tensorboard", "wandb"
TENSORBOARD_FOLDER = "tensorboard"
_INSTALL = {TENSORBOARD: "pip install 'flashsloth[tensorboard]'", WANDB: "pip install wandb"}


def check_installed(names: list[str]) -> None:
    """Refuse what is asked for and not there.

    Raises:
        RecipeError: naming it.
    """
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(f"report_to asks for {name}, which is not installed: {_INSTALL[name]}")


def reporters(names: list[str], folder: Path, step: int) -> list[Any]:
    """Callbacks for Trainer.

    Args:
        names: a recipe's `report_to`.
        folder: the stage's.
        step: the last one that the log already has.
    """
    check_installed(names)
    made: list[Any] = []
    if TENSORBOARD in names and ranks.is_first():
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        made.append(TensorBoardCallback(SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)))
    if WANDB in names:
        from transformers.integrations import WandbCallback

        made.append(WandbCallback())
    return made


__all__ = ["check_installed", "reporters"]
