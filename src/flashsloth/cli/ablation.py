"""`flashsloth ablation`: trains models that differ in one thing, and lays what they can do side by side."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from flashsloth.cli import terminal

EXAMPLES = (
    "flashsloth ablation recipes/experiments/claim.yaml",
    "flashsloth ablation recipes/experiments/claim.yaml --report docs/results",
)


def ablation(
    file: Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="Which models, seeds and stages.")],
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Where table and plots go; default: its output.")
    ] = None,
) -> None:
    """Compare models that differ in one thing: same data, seeds and steps.

    Every variant is trained with every seed and then asked the same questions; what its cost is, is measured. Runs that
    are done are not done again, so a stopped experiment goes on when it is started again. Leaves a table and plots.
    """
    from flashsloth.ablation.variants import load_experiment

    loaded = load_experiment(file)
    terminal.quiet_libraries()
    from flashsloth.ablation.report import read_rows, write_report
    from flashsloth.ablation.run import run_experiment

    console = terminal.stderr()
    terminal.show_log(logging.INFO, console)
    run_experiment(loaded, done=terminal.print_note)
    path = write_report(loaded, read_rows(loaded), report or loaded.output)
    terminal.print_line(path)
