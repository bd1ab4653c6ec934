"""`flashsloth eval compare`: two runs of a benchmark beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.terminal import CommandError

if TYPE_CHECKING:
    from flashsloth.evaluation.compare import Comparison, Pair

EXAMPLES = (
    "flashsloth eval compare eval/pope-nano eval/pope-mine",
    "flashsloth eval compare before/predictions.jsonl after/predictions.jsonl --data data/pope --out page.html",
)
MOST = 200
"""Groups of questions on a page."""
CHANGES_SHOWN = 10
ANSWER_CHARACTERS = 60
"""Of an answer on a terminal."""


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="A predictions.jsonl, or the folder that holds one.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another, of the same questions.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Write a page with both answers to each question.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FOLDER", help="The benchmark's files, for the page's pictures.")
    ] = None,
    most: Annotated[
        int, typer.Option("--most", metavar="N", help="Questions on the page; those that changed come first.")
    ] = MOST,
    as_json: arguments.Json = False,
) -> None:
    """Compare two runs on the same questions: which is better, by how much, and on which questions.

    The difference's 95 % interval is paired: the same pictures are drawn for both runs. Runs of different questions,
    rules or truths are refused. The page is one file that needs no network.
    """
    if data is not None and out is None:
        raise CommandError("--data is for the page's pictures, and no page is written: give --out as well")
    if most < 1:
        raise CommandError(f"--most is {most}; expected at least 1")
    from flashsloth.evaluation.compare import compare as run
    from flashsloth.evaluation.compare_page import write_page
    from flashsloth.evaluation.tasks import make_task

    found = run(before, after)
    if out is not None:
        with terminal.waiting("writing the page"):
            task = make_task(found.settings.task, found.settings.preset)
            items = None if data is None else list(task.read(data))
            failed = write_page(out, found, items, most)
        if failed:
            terminal.print_warning(f"{failed:,} pictures cannot be opened; the page says why")
    if as_json:
        terminal.print_json(found.to_dict())
        return
    _print(found)
    if out is not None:
        terminal.print_line(f"the page: {out}")


def _print(found: Comparison) -> None:
    from rich.table import Table

    from flashsloth.evaluation.compare import LABELS, SAME
    from flashsloth.evaluation.compare_page import shown_interval, signed, verdict

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2))
    table.add_column(found.settings.title, no_wrap=True)
    for title in (found.before.name, found.after.name, "difference", "95 % interval"):
        table.add_column(terminal.harmless(title), justify="right")
    for one in found.differences:
        cells = (f"{one.before:.2f}", f"{one.after:.2f}", signed(one.value), shown_interval(one))
        table.add_row(one.name, *cells, style="bold" if one is found.score else "dim")
    terminal.stdout().print(table)
    terminal.print_line(verdict(found))
    terminal.print_line(", ".join(f"{count:,} {LABELS[outcome]}" for outcome, count in found.counts.items()))
    if found.unjudged:
        terminal.print_warning(f"nobody has judged {found.unjudged:,} in one of the runs: they are left out")
    changed = [pair for pair in found.ordered if pair.outcome != SAME]
    for pair in changed[:CHANGES_SHOWN]:
        terminal.print_line(f"  {_line(pair)}")
    if len(changed) > CHANGES_SHOWN:
        terminal.print_note(f"  and {len(changed) - CHANGES_SHOWN:,} more: --json has all, --out shows them")


def _line(pair: Pair) -> str:
    """A change in a line: what became of it, which question, both answers."""
    sides = [" | ".join(_short(one.answer) for one in side.predictions) for side in (pair.before, pair.after)]
    return terminal.harmless(f"{pair.outcome}  {pair.before.predictions[0].id}  {sides[0]} -> {sides[1]}")


def _short(answer: str) -> str:
    text = " ".join(answer.split())
    return repr(text if len(text) <= ANSWER_CHARACTERS else f"{text[:ANSWER_CHARACTERS]}...")
