"""`flashsloth eval`: measures a model and prints what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal

if TYPE_CHECKING:
    from flashsloth.evaluation.qa_file import PicturesReport
    from flashsloth.evaluation.world_qa import WorldReport

WORLD_EXAMPLES = (
    "flashsloth eval world --count 200",
    "flashsloth eval world --unknown 0.1",
    "flashsloth eval world --model runs/nano/final --json > world.json",
)
PICTURES_EXAMPLES = (
    "flashsloth eval pictures tests/foreign/questions.yaml",
    "flashsloth eval pictures examples/questions.yaml --model runs/nano/final",
)


def world(
    model: arguments.Model = None,
    count: Annotated[int, typer.Option("--count", metavar="N", help="Pictures; each has 6 to 8 questions.")] = 2000,
    level: arguments.Level = 3,
    unknown: arguments.Unknown = 0.0,
    seed: arguments.Seed = 0,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
    as_json: arguments.Json = False,
) -> None:
    """Count right answers on drawn pictures that no training has seen.

    For each kind of question: how many were answered exactly right, the 95 % interval of that share, and what always
    giving the commonest answer would reach.
    """
    sloth = terminal.load_quietly(model, device, dtype, quantize)
    from flashsloth.evaluation.world_qa import evaluate_world

    with terminal.progress("asking", count) as advance:
        report = evaluate_world(sloth, count=count, seed=seed, level=level, unknown=unknown, progress=advance)
    _print_report(report, as_json)


def pictures(
    file: Annotated[Path, typer.Argument(metavar="QUESTIONS", help="A YAML file beside its pictures.")],
    model: arguments.Model = None,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
    as_json: arguments.Json = False,
) -> None:
    """Count right answers about pictures of your own.

    QUESTIONS names pictures beside it, each with a list of {kind, question, answer}; tests/foreign/questions.yaml is
    one, of pictures that a browser, matplotlib and ImageMagick drew. Counted by kind and by folder.
    """
    from flashsloth.evaluation.qa_file import evaluate_pictures, read_questions

    count = len(read_questions(file))
    sloth = terminal.load_quietly(model, device, dtype, quantize)
    with terminal.progress("asking", count) as advance:
        report = evaluate_pictures(sloth, file, progress=advance)
    _print_report(report, as_json)


def _print_report(report: WorldReport | PicturesReport, as_json: bool) -> None:
    from rich.table import Table

    if as_json:
        terminal.print_json(report.to_dict())
        return

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2))
    table.add_column("question")
    for title in ("asked", "right", "95 % interval", "commonest answer"):
        table.add_column(title, justify="right")
    for score in [*report.kinds, *report.also, report.total]:
        style = "bold" if score is report.total else "dim" if score in report.also else None
        low, high = score.interval
        shares = (f"{100 * score.share:.1f} %", f"{100 * low:.1f} - {100 * high:.1f}", f"{100 * score.majority:.1f} %")
        table.add_row(score.name, f"{score.asked:,}", *shares, style=style)
    terminal.stdout().print(table)
    terminal.print_note(f"{report.model}, {report.pictures:,} pictures, {report.seconds:.0f} s")
