"""`flashsloth train`: runs a recipe."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import terminal
from flashsloth.cli.terminal import CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from flashsloth.training.run_log import Progress, Watcher

EXAMPLES = (
    "flashsloth train recipes/nano.yaml",
    "flashsloth train recipes/nano.yaml --resume",
    "flashsloth train recipes/nano.yaml --set seed=2 --set stages.0.steps=100",
)
BAR_WIDTH = 30
TRAINING_PACKAGES = ("accelerate", "matplotlib")
"""What `pip install flashsloth[train]` adds."""


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to train on what; see recipes/.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be given again."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run of this recipe stopped; start where none did.")
    ] = False,
) -> None:
    """Train a model as a recipe says.

    Without --resume, an existing run is an error that says how far it came. SIGTERM or Ctrl-C end the run
    after its step, with a checkpoint.
    """
    from flashsloth.training.recipe import load_recipe

    loaded = load_recipe(recipe, changes or [])
    missing = [name for name in TRAINING_PACKAGES if find_spec(name) is None]
    if missing:
        raise CommandError(f"training needs {' and '.join(missing)}: pip install 'flashsloth[train]'")
    terminal.quiet_libraries()  # before Trainer is imported, which brings PEFT and what it looks for
    from flashsloth.training import distributed
    from flashsloth.training.interruptions import TrainingInterrupted
    from flashsloth.training.run import train as run

    is_first = distributed.is_first()
    console = terminal.stderr()
    terminal.show_log(logging.INFO if is_first else logging.ERROR, console)
    with _watcher(console) if is_first and console.is_terminal else nullcontext() as watch:
        try:
            folder = run(loaded, resume=resume, watch=watch)
        except TrainingInterrupted as stop:
            if is_first:
                terminal.print_error(str(stop))
            raise typer.Exit(stop.exit_code) from None
    if is_first:
        terminal.print_line(folder)


@contextmanager
def _watcher(console: Console) -> Iterator[Watcher]:
    """A bar and the numbers below it, for a terminal; what is logged goes above."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from flashsloth.training.run_log import duration

    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:

        def watch(progress: Progress) -> None:
            left = "" if progress.seconds_left is None else f"{duration(progress.seconds_left)} left"
            row = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=progress.steps, completed=progress.step, width=BAR_WIDTH)
            row.add_row(progress.stage, bar, f"{progress.step}/{progress.steps}", left)
            live.update(Group(row, Text(progress.details(), style="dim")), refresh=True)

        yield watch
