"""Serving's figures for people, and kept while they are measured.

In: results, as they come. Out: `serving.jsonl`, a line each; tables on a console and as `serving.md`; two pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from flashsloth.benchmark.plots import DPI, GRID, OURS, THEIRS
from flashsloth.benchmark.report import Table, markdown_table, rich_table
from flashsloth.benchmark.serving.cost import Level
from flashsloth.benchmark.serving.figures import RowResult, read_result
from flashsloth.benchmark.serving.suite import Outcome
from flashsloth.benchmark.serving.true_size import TrueSize
from flashsloth.errors import BenchmarkError
from flashsloth.files import write_whole

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes

LINES_FILE, MARKDOWN_FILE = "serving.jsonl", "serving.md"
THROUGHPUT_FILE, FIRST_TOKEN_FILE = "serving_throughput.png", "serving_first_token.png"
MOST_REASONS = 5
KINDS = {"row": RowResult, "level": Level, "true size": TrueSize}
Kept = Outcome | TrueSize
Line = tuple[str, str, list[float]]
"""Name, colour and values."""


def keep(outcome: Kept, folder: Path) -> None:
    """Add a line to the file of what was measured."""
    with (folder / LINES_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(described(outcome)) + "\n")


def described(outcome: Kept) -> dict[str, Any]:
    """A result for programs."""
    kind = next(name for name, made in KINDS.items() if isinstance(outcome, made))
    return {"kind": kind, "holds": holds(outcome), **asdict(outcome)}


def holds(outcome: Kept) -> bool:
    """Whether nothing is missed."""
    return outcome.holds if isinstance(outcome, RowResult) else not outcome.wrong


def load_kept(path: Path) -> list[Kept]:
    """What a run left; of a row that was measured again, the last.

    Raises:
        BenchmarkError: for a file of something else.
    """
    file = path / LINES_FILE if path.is_dir() else path
    found: dict[Any, Kept] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
            kind = KINDS[values.pop("kind")]
            del values["holds"]
            one: Kept = (
                read_result(values) if kind is RowResult else kind(**{**values, "wrong": tuple(values["wrong"])})
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BenchmarkError(f"{file}: line {number} is no result of `flashsloth bench serve`") from error
        found[_key(one)] = one
    return list(found.values())


def _key(one: Kept) -> Any:
    if isinstance(one, RowResult):
        return one.name
    return ("level", one.clients) if isinstance(one, Level) else ("true size", one.model, one.clients)


def tables(kept: Iterable[Kept]) -> list[Table]:
    """Every table that has something in it."""
    all_of_them = list(kept)
    rows = [one for one in all_of_them if isinstance(one, RowResult)]
    levels = [one for one in all_of_them if isinstance(one, Level)]
    sizes = [one for one in all_of_them if isinstance(one, TrueSize)]
    return [table for table in (_rows(rows), _levels(levels), _sizes(sizes)) if table.rows]


def remarks(kept: Iterable[Kept]) -> list[str]:
    """What must not have been, of each row some."""
    found: list[str] = []
    for one in kept:
        name = one.name if isinstance(one, RowResult) else f"{one.clients} clients"
        found += [f"{name}: {text}" for text in one.wrong[:MOST_REASONS]]
        if len(one.wrong) > MOST_REASONS:
            found.append(f"{name}: and {len(one.wrong) - MOST_REASONS:,} more")
    return found


def _rows(rows: list[RowResult]) -> Table:
    cells = []
    for row in rows:
        cells.append([row.name, "", "", "held" if row.holds else "missed"])
        cells += [[f"  {one.name}", one.shown, one.limit, "" if one.holds else "missed"] for one in row.figures]
        if row.wrong:
            cells.append(["  what must not be", f"{len(row.wrong):,}", "at most 0", "missed"])
    return Table("What must hold", ["figure", "measured", "limit", ""], cells)


def _levels(levels: list[Level]) -> Table:
    cells = [
        [
            f"{one.clients:,}",
            f"{one.tokens_per_second:,.0f}",
            f"{one.batch_tokens_per_second:,.0f}",
            f"{one.tokens_per_second / one.batch_tokens_per_second:.0%}",
            f"{1000 * one.first_token:,.0f} ms",
            f"{1000 * one.first_token_p99:,.0f} ms",
            f"{one.client_seconds:.2f} s",
            str(len(one.wrong)),
        ]
        for one in levels
    ]
    columns = ["clients", "tokens/s", "answer_batch", "share", "first token", "its p99", "clients' processor", "wrong"]
    return Table("Throughput and first token against concurrency", columns, cells)


def _sizes(sizes: list[TrueSize]) -> Table:
    cells = [
        [
            one.model,
            str(one.clients),
            f"{one.tokens_per_second:.1f}",
            f"{one.first_token:.1f} s",
            f"{one.seconds:.1f} s",
        ]
        for one in sizes
    ]
    columns = ["model", "clients", "tokens/s", "first token", "all"]
    return Table("True size, random weights, answers of 8 tokens, new pictures", columns, cells)


def print_tables(kept: Iterable[Kept], console: Console) -> None:
    """Show everything in a terminal."""
    shown = list(kept)
    for table in tables(shown):
        console.print()
        console.print(Text(table.title, style="bold cyan"))
        console.print(rich_table(table))
    for remark in remarks(shown):
        console.print(Text(remark), soft_wrap=True)


def write_report(kept: list[Kept], folder: Path) -> list[Path]:
    """Write the tables and the pictures; returns their paths."""
    parts = ["# Serving", "Measured with `flashsloth bench serve`."]
    for table in tables(kept):
        parts += [f"## {table.title}", markdown_table(table.columns, table.rows)]
    parts += ["\n".join(f"- {one}" for one in found)] if (found := remarks(kept)) else []
    levels = sorted((one for one in kept if isinstance(one, Level)), key=lambda one: one.clients)
    plots = draw(levels, folder) if levels else []
    parts += [f"![{path.stem.replace('_', ' ')}]({path.name})" for path in plots]
    write_whole(folder / MARKDOWN_FILE, "\n\n".join(parts) + "\n")
    return [folder / LINES_FILE, folder / MARKDOWN_FILE, *plots]


def draw(levels: list[Level], folder: Path) -> list[Path]:
    """Throughput, and first token, against how many clients there are; returns their paths."""
    clients = [one.clients for one in levels]
    served = [one.tokens_per_second for one in levels]
    batch = [one.batch_tokens_per_second for one in levels]
    first = [one.first_token for one in levels]
    last = [one.first_token_p99 for one in levels]
    names = ("served", OURS, served), ("answer_batch, in process", THEIRS, batch)
    times = ("median", OURS, first), ("99 of 100 are below", THEIRS, last)
    return [
        _draw(folder / THROUGHPUT_FILE, "Tokens a second against clients at once", "tokens/s", clients, names),
        _draw(folder / FIRST_TOKEN_FILE, "First token against clients at once", "seconds", clients, times),
    ]


def _draw(
    path: Path, title: str, label: str, clients: list[int], lines: Iterable[tuple[str, str, list[float]]]
) -> Path:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.6, 4.4), layout="constrained")
        axes = figure.subplots()
        for name, color, values in lines:
            axes.plot(clients, values, "o-", color=color, linewidth=2, label=name)
        _label_clients(axes, clients)
        axes.set_ylim(0)
        axes.grid(axis="y", **GRID)
        axes.set_ylabel(label)
        axes.set_title(title, loc="left")
        axes.legend(frameon=False)
        figure.savefig(path, dpi=DPI)
    return path


def _label_clients(axes: Axes, clients: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(clients, [f"{one:,}" for one in clients])
    axes.minorticks_off()
    axes.set_xlabel("clients at once (logarithmic)")
