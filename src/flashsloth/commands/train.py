"""`flashsloth train`: runs a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flashsloth.commands.failures import CommandError

EXAMPLES = (
    "flashsloth train recipes/nano.yaml",
    "flashsloth train recipes/nano.yaml --set seed=2 --set stages.0.steps=100",
)
TRAINING_PACKAGES = ("accelerate", "matplotlib")
"""What `pip install flashsloth[train]` adds."""


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to train on what; see recipes/.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be given again."),
    ] = None,
) -> None:
    """Train a model as a recipe says.

    A stage that is done is not run again, one that was interrupted goes on where it was.
    """
    from flashsloth.commands import terminal
    from flashsloth.training.recipe import load_recipe

    loaded = load_recipe(recipe, changes or [])
    _check_packages()
    from flashsloth.training.run import train as run

    terminal.show_log()
    folder = run(loaded)
    terminal.stdout().print(str(folder), soft_wrap=True)


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in TRAINING_PACKAGES if find_spec(name) is None]
    if missing:
        raise CommandError(f"training needs {' and '.join(missing)}: pip install 'flashsloth[train]'")
