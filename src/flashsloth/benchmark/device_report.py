"""Throughput and training on a device, for people.

In: :class:`DeviceResults`. Out: tables, on a console and as Markdown (`device.md`, beside `device.json`).
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from flashsloth.benchmark.device import DeviceResults, DeviceTraining, save_device_results
from flashsloth.benchmark.report import Table, markdown_table, rich_table
from flashsloth.benchmark.workload import MODELS
from flashsloth.files import write_whole

MARKDOWN_FILE = "device.md"
GIGA = 1e9
REFERENCE = "flashsloth"
STAGE_NUMBERS = {"alignment": "1", "instruction": "2"}


def device_tables(results: DeviceResults) -> list[Table]:
    """Throughput, starts, training, and what the device was."""
    found = [_throughput(results), _starts(results), _agreement(results), _training(results), _facts(results)]
    return [table for table in found if table.rows]


def print_device_results(results: DeviceResults, console: Console) -> None:
    """Show everything in a terminal."""
    for table in device_tables(results):
        console.print()
        console.print(Text(table.title, style="bold cyan"))
        console.print(rich_table(table))


def write_device_report(results: DeviceResults, folder: Path) -> list[Path]:
    """Write every file; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# Many pictures, and training ({results.date[:10]}, version {results.flashsloth})"]
    for table in device_tables(results):
        parts += [f"## {table.title}", markdown_table(table.columns, table.rows)]
    text = folder / MARKDOWN_FILE
    write_whole(text, "\n\n".join(parts) + "\n")
    return [save_device_results(results, folder), text]


def _throughput(results: DeviceResults) -> Table:
    rows = []
    for one in results.throughput:
        head = [_title(one.subject), str(one.new_tokens), str(one.rows)]
        if one.failure is not None:
            rows.append([*head, one.failure, ""])
        else:
            rows.append([*head, f"{one.pictures_per_second:,.1f}", f"{one.tokens_per_second:,.0f}"])
    return Table("Many pictures, a question each", ["model", "answer", "at once", "pictures/s", "tokens/s"], rows)


def _starts(results: DeviceResults) -> Table:
    rows = [
        [_title(name), *(f"{seconds[part]:.1f} s" for part in ("build", "first_answer", "second_answer"))]
        for name, seconds in results.starts.items()
    ]
    return Table("Starting", ["model", "making it", "first answer", "second answer"], rows)


def _agreement(results: DeviceResults) -> Table:
    rows = [
        [_title(one.subject), str(one.positions), f"{one.largest_kl:.1e}", f"{one.mean_kl:.1e}"]
        for one in results.agreement
    ]
    rows += [[_title(name), "", failure, ""] for name, failure in results.failures.items()]
    return Table("The fast path beside float32", ["model", "positions", "largest KL", "mean KL"], rows)


def _training(results: DeviceResults) -> Table:
    own = {one.stage: one for one in results.training if one.subject == REFERENCE and one.failure is None}
    rows = []
    for one in results.training:
        head = [_title(one.subject), STAGE_NUMBERS.get(one.stage, one.stage), str(one.rows)]
        if one.failure is not None:
            rows.append([*head, "", one.failure, "", ""])
            continue
        less = _less(own.get(one.stage), one)
        rows.append(
            [*head, str(one.positions), f"{one.samples_per_second:.1f}", f"{one.peak_bytes / GIGA:.1f} GB", less]
        )
    columns = ["model", "stage", "samples", "positions", "samples/s", "memory", "FlashSloth's is"]
    return Table("Training steps", columns, rows)


def _less(own: DeviceTraining | None, other: DeviceTraining) -> str:
    """How much less memory FlashSloth holds in the same stage."""
    if own is None or own is other:
        return ""
    share = 1 - own.peak_bytes / other.peak_bytes
    return f"{abs(share):.0%} {'less' if share >= 0 else 'more'}"


def _facts(results: DeviceResults) -> Table:
    before, after = results.facts.get("before", {}), results.facts.get("after", {})
    rows = [[name, value, after.get(name, "")] for name, value in before.items()]
    return Table("The device", ["", "before", "after"], rows)


def _title(name: str) -> str:
    return MODELS[name].title if name in MODELS else name
