"""Where the log goes beside the run's folder: TensorBoard, and Weights & Biases where it is installed.

In: a recipe's `report_to`, and the stage's folder. Out: transformers' own callbacks for them. What they write lies in
the stage's folder. In TensorBoard, what a killed run wrote after its last checkpoint is hidden when it goes on.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flashsloth.training import ranks
from flashsloth.training.recipe import RecipeError

TENSORBOARD, WANDB = "tensorboard", "wandb"
TENSORBOARD_FOLDER = "tensorboard"
PROJECT = "flashsloth"
"""Where Weights & Biases puts a run, unless WANDB_PROJECT says otherwise."""
_INSTALL = {TENSORBOARD: "pip install 'flashsloth[tensorboard]'", WANDB: "pip install wandb"}


def check_installed(names: Sequence[str]) -> None:
    """Refuse what is asked for and not there.

    Raises:
        RecipeError: naming it.
    """
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(f"report_to asks for {name}, which is not installed: {_INSTALL[name]}")


@contextmanager
def reporters(names: Sequence[str], folder: Path, run_name: str, step: int) -> Iterator[list[Any]]:
    """Callbacks for Trainer, as long as a stage runs.

    Args:
        names: a recipe's `report_to`.
        folder: the stage's.
        run_name: what Weights & Biases shows.
        step: the last one that the log already has.
    """
    check_installed(names)
    made: list[Any] = []
    if TENSORBOARD in names and ranks.is_first():
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        made.append(TensorBoardCallback(SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)))
    with ExitStack() as stack:
        if WANDB in names:
            from transformers.integrations import WandbCallback

            stack.enter_context(_wandb_run(folder, run_name))
            made.append(WandbCallback())  # takes that run
        yield made


@contextmanager
def _wandb_run(folder: Path, run_name: str) -> Iterator[None]:
    """A run of Weights & Biases for a stage: the same one again when the stage goes on, another for the next stage."""
    if not ranks.is_first():
        yield
        return
    import wandb

    id_file = folder / WANDB / "id"
    id_file.parent.mkdir(parents=True, exist_ok=True)
    if not id_file.is_file():
        id_file.write_text(secrets.token_hex(4), encoding="utf-8")
    number = id_file.read_text(encoding="utf-8").strip()
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    wandb.init(project=project, name=run_name, id=number, resume="allow", dir=folder)
    try:
        yield
    finally:
        wandb.finish()


__all__ = ["check_installed", "reporters"]
