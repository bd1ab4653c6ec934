"""Results for people: as tables in the terminal, and as a folder of files.

In: :class:`Results`. Out: tables, a line about the machine, one about the job, and remarks (what was disturbed, thrown
away, made in turns, or failed) on a console; or `results.json`, `results.md` and plots. A dash: it was not measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from flashsloth.benchmark.results import (
    RESULTS_FILE,
    SHOWN_STAGES,
    Figures,
    Results,
    Spread,
    all_figures,
    ratios,
    save_results,
)
from flashsloth.benchmark.workload import HEIGHT, WIDTH
from flashsloth.files import write_whole
from flashsloth.planning.machine import readable

MARKDOWN_FILE = "results.md"
WIDE_COLUMNS = 110
"""From this many characters a line on, a terminal shows every column."""
HEADING = "Measured with `flashsloth bench`"
NOTHING = "–"
"""What stands for what was not measured."""


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column is to be aligned left, the others right.

    Attributes:
        title: what it is about.
        columns: their titles.
        rows: their cells.
        wide: columns that may be left out where there is little room.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    wide: frozenset[str] = frozenset()

    def narrowed(self) -> Table:
        """Without the columns that may be left out."""
        kept = [place for place, column in enumerate(self.columns) if column not in self.wide]
        return Table(
            self.title, [self.columns[place] for place in kept], [[row[place] for place in kept] for row in self.rows]
        )


def all_tables(results: Results) -> list[Table]:
    """Every table that has something in it."""
    figures = [one for one in all_figures(results) if one.first_token is not None]
    tables = [_speed(figures), _work(figures), _limits(figures), _ratios(results), _more(figures)]
    return [table for table in tables if table.rows]


def machine_line(results: Results) -> str:
    """The machine and its limits."""
    machine = results.machine
    rates = ", ".join(
        f"{name} products {readable(rate, 'FLOP')}/s" for name, rate in sorted(machine["matrix_rate"].items())
    )
    return (
        f"{machine['name']}, {machine['cores']} cores, {readable(machine['memory_bytes'], 'B')}, "
        f"{results.threads} threads; measured: reads {readable(machine['read_bandwidth'], 'B')}/s, {rates}; "
        f"torch {machine['torch']}, transformers {machine['transformers']}"
    )


def job_line(results: Results) -> str:
    """The standard job."""
    job = results.job
    return (
        f"One picture of {WIDTH}x{HEIGHT} in memory, {job['text_tokens']} text tokens, greedy, {job['new_tokens']} new "
        f"tokens forced, batch 1; random weights where the model is not shipped; seed {job['seed']}"
    )


def remarks(results: Results) -> Iterator[str]:
    """What a reader has to know beside the numbers."""
    if results.machine_disturbed:
        yield "Others used the machine while its limits were measured: they are too low, and shares of them too high."
    bandwidths = [run.read_bandwidth for one in results.subjects for run in one.runs]
    if bandwidths:
        least, middle, most = (
            readable(rate, "B") for rate in (min(bandwidths), statistics.median(bandwidths), max(bandwidths))
        )
        yield (
            f"Beside the runs the machine read {least}/s to {most}/s, {middle}/s in the middle: a token's limit is "
            "that of its own runs."
        )
    discarded = sum(model.discarded for model in results.subjects)
    disturbed = sum(figures.disturbed for figures in all_figures(results))
    kept = sum(len([*one.runs, *one.again, *one.batches]) for one in results.subjects)
    if discarded or disturbed:
        yield (
            f"Others used the machine meanwhile: {discarded} runs were thrown away and repeated, and {disturbed} of "
            f"the {kept} that count were disturbed all the same."
        )
    else:
        yield f"The machine was quiet: none of {kept} runs was disturbed."
    turns = [model.title for model in results.subjects if model.in_turns]
    if turns:
        yield f"Too large for memory together, so made again for every block of runs: {', '.join(turns)}."
    for model in results.subjects:
        if model.failure is not None:
            yield f"{model.title} failed ({model.failure})."


def _speed(figures: list[Figures]) -> Table:
    columns = ["model", "visual tokens", "first token", "p95", "a token", "p95 ", "tokens/s", "response", "memory"]
    rows = [
        [
            one.model.title,
            _shown(one.model.visual_tokens, "{:,}".format),
            _seconds(one.first_token),
            _worst(one.first_token),
            _seconds(one.token),
            _worst(one.token),
            _shown(one.tokens_per_second, "{:,.1f}".format),
            _seconds(one.response),
            _amount(one.model.peak_bytes, "B"),
        ]
        for one in figures
    ]
    return Table("The standard job (medians)", columns, rows, wide=frozenset(("p95", "p95 ")))


def _work(figures: list[Figures]) -> Table:
    columns = ["model", *SHOWN_STAGES]
    rows = [[one.model.title, *(_amount(one.stages[name] or None, "s") for name in SHOWN_STAGES)] for one in figures]
    return Table("Up to the first token", columns, rows)


def _limits(figures: list[Figures]) -> Table:
    columns = ["model", "parameters", "FLOP to first token", "its limit", "reached", "a token's limit", "reached "]
    rows = [
        [
            one.model.title,
            _amount(one.model.parameters, "").replace("G", "B"),  # billions, as people say
            _amount(one.first_flops, ""),
            _amount(one.first_limit, "s"),
            _shown(one.first_share, _percent),
            _amount(one.token_limit, "s"),
            _shown(one.token_share, _percent),
        ]
        for one in figures
    ]
    return Table("Against the machine's limits", columns, rows, wide=frozenset(("parameters",)))


def _ratios(results: Results) -> Table:
    found = ratios(results)
    title = f"Times as long as {found[0].reference.title}, in runs that alternated" if found else ""
    rows = [
        [one.other.title, *(f"{value:.2f}x" for value in (one.first_token, one.token, one.response))] for one in found
    ]
    return Table(title, ["model", "first token", "a token", "response"], rows)


def _more(figures: list[Figures]) -> Table:
    columns = ["model", "another question: first token", "at once", "tokens/s in all", "all answered after"]
    rows = [
        [
            one.model.title,
            _seconds(one.again),
            _shown(one.model.batch_rows, "{:,}".format),
            _shown(one.batch_rate, "{:,.1f}".format),
            _seconds(one.batch_response),
        ]
        for one in figures
        if one.again is not None or one.batch_rate is not None
    ]
    return Table("Questions about a picture that was asked about before, and many at once", columns, rows)


def _shown(value: Any, text: Callable[[Any], str]) -> str:
    """A measured value's text, and a dash for what was not measured."""
    return NOTHING if value is None else text(value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _seconds(spread: Spread | None) -> str:
    return _shown(spread, lambda one: readable(one.median, "s"))


def _worst(spread: Spread | None) -> str:
    return _shown(spread, lambda one: readable(one.p95, "s"))


def _amount(amount: float | None, unit: str) -> str:
    return _shown(amount, lambda one: readable(one, unit).strip())


def print_results(results: Results, console: Console) -> None:
    """Show everything in a terminal."""
    console.print(Text(machine_line(results)), soft_wrap=True)
    console.print(Text(job_line(results)), soft_wrap=True)
    for table in all_tables(results):
        console.print()
        console.print(Text(table.title, style="bold cyan"))
        console.print(rich_table(table if console.width >= WIDE_COLUMNS else table.narrowed()))
    console.print()
    for remark in remarks(results):
        console.print(Text(remark), soft_wrap=True)


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write every file; returns their paths."""
    from flashsloth.benchmark.plots import draw_plots

    folder.mkdir(parents=True, exist_ok=True)
    stored, text = folder / RESULTS_FILE, folder / MARKDOWN_FILE
    save_results(results, stored)
    plots = draw_plots(results, folder)
    write_whole(text, markdown(results, [(path.name, title) for path, title in plots.items()]))
    return [stored, text, *plots]


def markdown(results: Results, plots: list[tuple[str, str]]) -> str:
    """Everything as Markdown, with plots as (file, title)."""
    parts = [
        f"# {HEADING} ({results.date[:10]}, version {results.flashsloth}, suite {results.suite})",
        f"{machine_line(results)}.",
        f"{job_line(results)}.",
        *(f"![{title}]({file})" for file, title in plots),
    ]
    for table in all_tables(results):
        parts += [f"## {table.title}", markdown_table(table.columns, table.rows)]
    parts.append("\n".join(f"- {remark}" for remark in remarks(results)))
    return "\n\n".join(parts) + "\n"


def rich_table(table: Table) -> RichTable:
    """A table for the terminal."""
    shown = RichTable(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for place, column in enumerate(table.columns):
        shown.add_column(column.strip(), justify="left" if place == 0 else "right", no_wrap=place == 0)
    for row in table.rows:
        shown.add_row(*map(Text, row))
    return shown


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """A table as Markdown; the first column is aligned left, the others right."""
    lines = [[column.strip() for column in columns], ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
