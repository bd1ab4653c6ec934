"""Results for people: in the terminal, and as a folder of files.

In: :class:`Results`. Out: tables on a console; `results.json`, `results.md` and plots.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from flashsloth.benchmark.results import RESULTS_FILE, Results, save_results
from flashsloth.benchmark.tables import Table, all_tables, job_line, machine_line, remarks
from flashsloth.whole_file import write_whole

MARKDOWN_FILE = "results.md"
WIDE_COLUMNS = 110
"""From this many characters a line on, a terminal shows every column."""
HEADING = "Measured with `flashsloth bench`"


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
        parts += [f"## {table.title}", markdown_table(table)]
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


def markdown_table(table: Table) -> str:
    """A table as Markdown."""
    lines = [[column.strip() for column in table.columns], ["---", *["---:"] * (len(table.columns) - 1)], *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
