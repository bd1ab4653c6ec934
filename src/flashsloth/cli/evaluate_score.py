"""`flashsloth eval score`, and how the score of a benchmark is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.terminal import CommandError

if TYPE_CHECKING:
    from flashsloth.evaluation.report import Report
    from flashsloth.evaluation.task import Task

EXAMPLES = (
    "flashsloth eval score eval/pope-nano/predictions.jsonl",
    "flashsloth eval score a/predictions.part-1-of-2.jsonl b/predictions.part-2-of-2.jsonl",
    "flashsloth eval score predictions.jsonl --data data/mmmu --preset lmms-0.7.3",
)
INCOMPLETE = 1
"""Exit code where some questions were not answered, or some answers not judged."""
FAILURES_SHOWN = 3
"""Reasons."""


JudgeUrl = Annotated[
    str | None,
    typer.Option("--judge-url", metavar="URL", help="Ask a judge about what no rule decides: any OpenAI interface."),
]
JudgeModel = Annotated[str | None, typer.Option("--judge-model", metavar="NAME", help="The judge's name there.")]
JudgeTimes = Annotated[int, typer.Option("--judge-times", metavar="N", help="Judgements of each answer.")]


def score(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="predictions.jsonl or its folder, or all parts of a run.")
    ],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FOLDER", help="Take what is right from these files, by id.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Count by these rules; without it, by those that were asked with.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option("--scorer", metavar="RULES", help="Count by other rules than the preset's.")
    ] = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_times: JudgeTimes = 1,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write what was counted as one predictions.jsonl.")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Score answers again, without a model.

    Several files are taken for parts of one run, and counted only where every answer is there once. A judge is asked
    about answers that have no judgement yet, and its words are kept in the file. Exits with 1 where some answers are
    not judged.
    """
    from flashsloth.evaluation.predictions import (
        DATA,
        data_digest,
        join_truths,
        predictions_file,
        read_files,
        write_predictions,
    )
    from flashsloth.evaluation.report import make_report
    from flashsloth.evaluation.scoring import score as score_predictions
    from flashsloth.evaluation.tasks import make_task

    files = [predictions_file(file) for file in files]
    header, predictions, twice = read_files(files)
    task = make_task(header["task"], preset or header["preset"], scorer)
    where = " and ".join(map(str, files))
    if data is not None:
        items = list(make_task(header["task"], header["preset"]).read(data))
        predictions = join_truths(predictions, items, where, some=header.get("limit") is not None)
    if twice:
        terminal.print_warning(f"{where}: answers that are there twice, and were counted once: {twice:,}")
    if out is not None:
        whole = {DATA: {"items": len(predictions), "digest": data_digest(predictions)}} if DATA in header else {}
        write_predictions(out, {**header, **whole}, predictions)
    if judge_url is not None:
        file = out or files[0]
        if out is None and (len(files) > 1 or data is not None):
            raise CommandError("what the judge says is kept in one file: say by --out which one is to be written")
        judge(file, task, judge_url, judge_model, judge_times)
        header, predictions, _ = read_files([file])
    summary, _ = score_predictions(task, predictions)
    report = make_report(header, task.settings, summary, predictions)
    if as_json:
        terminal.print_json(report.to_dict())
        end_with([report])
    else:
        show_reports([report])


def judge(file: Path, task: Task, url: str, model: str | None, times: int = 1) -> None:
    """Ask a judge about what is not judged in a file.

    Raises:
        CommandError: without a model's name.
    """
    from flashsloth.evaluation.chat_client import ChatClient
    from flashsloth.evaluation.judge import KEY_VARIABLE, judge_file, unjudged
    from flashsloth.evaluation.predictions import read_predictions

    if model is None:
        raise CommandError("--judge-url needs --judge-model: the judge's name at that address")
    if times < 1:
        raise CommandError(f"--judge-times is {times}; expected at least 1")
    count = len(unjudged(task, read_predictions(file)[1], times))
    with terminal.progress("asking the judge", count) as advance:
        report = judge_file(file, task, ChatClient(url, model, KEY_VARIABLE), times, lambda: advance(1))
    for reason, failed in report.failures.most_common(FAILURES_SHOWN):
        terminal.print_warning(f"the judge failed {failed:,} times: {reason}")


def show_reports(reports: Sequence[Report]) -> None:
    """Print scores as a table.

    Raises:
        typer.Exit: with 1 where one is not whole.
    """
    if reports:
        _print_table(reports)
    end_with(reports)


def end_with(reports: Sequence[Report]) -> None:
    """End as scores that were shown ask for.

    Raises:
        typer.Exit: with 1 where one is not whole.
    """
    if not all(one.is_whole for one in reports):
        raise typer.Exit(INCOMPLETE)


def _print_table(reports: Sequence[Report]) -> None:
    """One benchmark with all its figures, or several with their scores."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2))
    for title in ("benchmark", "figure"):
        table.add_column(title, no_wrap=True)
    for title in ("ours", "95 % interval", "paper"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in reports:
        score = one.summary.score
        for figure in one.summary.figures if len(reports) == 1 else (score,):
            value = f"{'at least ' if one.summary.unjudged else ''}{figure.value:.2f}"
            paper = f"{one.paper:g}" if figure is score else ""
            cells = (figure.name, value, f"{figure.low:.2f} - {figure.high:.2f}", paper)
            table.add_row(one.title if figure is score else "", *cells, style="bold" if figure is score else "dim")
    terminal.stdout().print(table)
    for model in dict.fromkeys(f"{one.model}, beside the paper's {one.paper_model}" for one in reports):
        terminal.print_line(model)
    for one in reports:
        terminal.print_line(f"{one.title}: {'; '.join(_facts(one))}")
    _print_differences(reports)
    for one in reports:
        if missing := one.asked - one.summary.items:
            terminal.print_warning(f"{one.title}: {missing:,} of {one.asked:,} questions have no answer, nor count")
        if one.summary.unjudged:
            terminal.print_warning(
                f"{one.title}: nobody has judged {one.summary.unjudged:,} of {one.summary.groups:,} answers; the "
                "interval is from all of them wrong to all of them right"
            )


def _facts(report: Report) -> list[str]:
    """How figures came about."""
    summary = report.summary
    found = [f"{summary.items:,} questions about {summary.pictures:,} pictures", f"counted by: {summary.scorer}"]
    if report.seconds is not None:
        found.append(f"{report.seconds:.3g} s an answer")
    if report.tokens is not None:
        found.append(f"{report.tokens:.1f} tokens an answer")
    if summary.judged or summary.unjudged:
        found.append(f"{100 * summary.judged / summary.groups:.1f} % judged by a model")
    return found


def _print_differences(reports: Sequence[Report]) -> None:
    """What is not as in the paper: what several benchmarks share, once, and then each one's own."""
    shared = [what for what in reports[0].differs if all(what in one.differs for one in reports)]
    found = [
        ("", shared),
        *((f"{one.title}: ", [what for what in one.differs if what not in shared]) for one in reports),
    ]
    if any(differences for _, differences in found):
        terminal.print_line("not as in the paper:")
    for title, differences in found:
        if differences:
            terminal.print_line(f"  {title}{'; '.join(differences)}")
