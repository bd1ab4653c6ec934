"""`flashsloth data table`: a table of pictures, questions and answers becomes training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "flashsloth data table answers.csv --images pictures --out training-data",
    "flashsloth data table answers.jsonl --images pictures --out training-data --held-out 0.2",
)


def table(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, TSV or .jsonl with the columns image, question, answer.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where train.json and held_out.json go.")],
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Where picture paths start from; FILE's folder.")
    ] = None,
    held_out: Annotated[
        float, typer.Option("--held-out", metavar="SHARE", help="Share of the pictures kept for measuring.")
    ] = 0.1,
) -> None:
    """Make training data of a table of answers.

    Writes LLaVA's JSON: what is trained on, and what is held out; no picture is in both.
    """
    from flashsloth.cli import terminal
    from flashsloth.training.data.answer_table import write_training_data

    split = write_training_data(file, file.parent if images is None else images, out, held_out)
    terminal.stdout().print(f"{split.train}: {_rows(split.train_rows, split.train_pictures)}", soft_wrap=True)
    if split.held_out is not None:
        held = _rows(split.held_out_rows, split.held_out_pictures)
        terminal.stdout().print(f"{split.held_out}: {held}", soft_wrap=True)


def _rows(questions: int, pictures: int) -> str:
    return f"{questions:,} questions about {pictures:,} pictures"
