"""`flashsloth eval drift`: what differs from the published settings, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.terminal import CommandError
from flashsloth.evaluation.settings import PAPER, PRESETS, TASKS

if TYPE_CHECKING:
    from rich.text import Text

    from flashsloth.evaluation.drift import Comparison, Drift, Line
    from flashsloth.evaluation.lmms_eval_files import LmmsEval

EXAMPLES = (
    "flashsloth eval drift",
    "flashsloth eval drift mmmu --preset lmms-0.7.3",
    "flashsloth eval drift pope --data data/pope",
    "flashsloth eval drift --run eval/pope-nano/predictions.jsonl",
)
ALL = "all"
WOULD_DIFFER = 1
"""Exit code of --strict where something differs."""
SAME, DIFFERS, NOT_KNOWN = "same", "differs", "not known"
WHAT_WIDTH = 24
STYLES = {SAME: "dim", DIFFERS: "yellow", NOT_KNOWN: "cyan"}


def drift(
    task: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help=f"A benchmark, or {ALL}; without it, the run's, or {ALL}.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help=f"Compare the settings of: {', '.join(PRESETS)}.")] = PAPER,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="FILE", help="Compare this predictions.jsonl's settings instead.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help=f"Compare these files; of {ALL}, a folder of each one's name."),
    ] = None,
    lmms_eval: Annotated[
        Path | None,
        typer.Option("--lmms-eval", metavar="FOLDER", help="Of an lmms-eval; without it, the one that is installed."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything differs.")] = False,
    as_json: arguments.Json = False,
) -> None:
    """Show what differs from the published settings, and what to expect of it.

    Compared with them, line by line: a preset, or the run that made a predictions.jsonl; an installed lmms-eval, whose
    files are read and not imported; and data. A line says same, differs, or not known.
    """
    from flashsloth.evaluation.drift import compare_run
    from flashsloth.evaluation.lmms_eval_files import find_lmms_eval

    ran = None
    if run is not None:
        if preset != PAPER:
            raise CommandError("--preset is not for --run, whose file says how it was asked: leave one of them out")
        ran = compare_run(run)
        if task not in (None, ran[0]):
            raise CommandError(f"--run {run} is of {ran[0]}, not of {task}: leave the task out")
        task = ran[0]
    tasks = list(TASKS) if task in (None, ALL) else [str(task)]
    lmms = find_lmms_eval(lmms_eval)
    reports = []
    for one in tasks:
        folder = data if data is None or len(tasks) == 1 else data / one
        reports.append(_report(one, preset, ran and ran[1:], folder, lmms))
    if as_json:
        terminal.print_json([one.to_dict() for one in reports] if len(reports) > 1 else reports[0].to_dict())
    else:
        for report in reports:
            _print(report, every_line=len(reports) == 1)
        if len(reports) > 1:
            _print_absent(reports)
    if strict and any(one.differs for one in reports):
        raise typer.Exit(WOULD_DIFFER)


def _report(
    task: str, preset: str, ran: tuple[Comparison, Comparison] | None, data: Path | None, lmms: LmmsEval | None
) -> Drift:
    from flashsloth.evaluation.drift import compare_data, compare_lmms_eval, compare_preset, make_drift, no_data
    from flashsloth.evaluation.settings import SettingsError
    from flashsloth.evaluation.tasks import make_task

    found = list(ran) if ran is not None else [compare_preset(task, preset)]
    found.append(compare_lmms_eval(task, lmms))
    if data is not None and data.is_dir():
        try:
            reader = make_task(task, preset)
        except SettingsError:  # LLaVA's scripts have not all tasks
            reader = make_task(task)
        ids = [item.id for item in reader.read(data)]
        found.append(compare_data(task, reader.settings.preset, ids, data))
    elif ran is None:
        found.append(no_data(task, "--data FOLDER compares files" if data is None else "there is no such folder"))
    return make_drift(task, found)


def _print(report: Drift, *, every_line: bool) -> None:
    """A task's report; of several tasks', what is the same is summed up."""
    from rich.table import Table
    from rich.text import Text

    out = terminal.stdout()
    figures = f"the paper has {report.paper:g}, and {report.paper_hd:g} for HD"
    within = "" if report.half_width is None else f"; 95 % half width {report.half_width:.1f} points"
    out.print(Text(f"{report.title}: {figures}{within}", "bold"))
    not_said = [(NOT_KNOWN, "", Text(one)) for one in report.not_known]
    sections = [("what the paper does not say", not_said)] if not_said else []
    shown = [one for one in report.comparisons if every_line or one.is_there]
    sections += [(one.name, list(_rows(one, every_line))) for one in shown]
    for title, rows in sections:
        out.print(Text(f"  {terminal.harmless(title)}", "bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=2)
        table.add_column(no_wrap=True, min_width=len(NOT_KNOWN))
        table.add_column(no_wrap=True, min_width=WHAT_WIDTH)
        table.add_column(overflow="fold")
        for state, what, said in rows:
            table.add_row("", Text(state, STYLES[state]), what, said)
        out.print(table)
    out.print()


def _print_absent(reports: Sequence[Drift]) -> None:
    """What could not be compared, once for all tasks."""
    absent: dict[tuple[str, str], list[str]] = {}
    for report in reports:
        for one in report.comparisons:
            if not one.is_there:
                absent.setdefault((one.name, one.lines[0].effect), []).append(report.task)
    for (name, why), tasks in absent.items():
        terminal.print_line(f"{name} of {'all' if len(tasks) == len(reports) else ', '.join(tasks)}: {why}")


def _rows(comparison: Comparison, every_line: bool) -> Iterator[tuple[str, str, Text]]:
    """(state, what, what is said of it)."""
    from rich.text import Text

    for line in comparison.lines:
        if every_line or line.state != SAME:
            yield line.state, line.what, _said(line)
    if not every_line and (same := [line.what for line in comparison.lines if line.state == SAME]):
        yield SAME, f"{len(same)} settings", Text(", ".join(same), STYLES[SAME])


def _said(line: Line) -> Text:
    from rich.text import Text

    if line.state == SAME:
        return Text(terminal.harmless(line.found), STYLES[SAME])
    text = Text(terminal.harmless(f"{line.published} -> {line.found}"))
    beside = "" if line.half_width is None else f" (half width {line.half_width:.1f})"
    return text.append(f"\n{line.effect}{beside}" if line.effect else "", "dim")
