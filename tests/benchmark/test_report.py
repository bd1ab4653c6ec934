"""The report shows every number once, in the terminal and in Markdown, and says what a reader has to know."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from some_results import make_results

from flashsloth.benchmark.report import (
    MARKDOWN_FILE,
    NOTHING,
    all_tables,
    markdown,
    print_results,
    remarks,
    write_report,
)
from flashsloth.benchmark.results import RESULTS_FILE, Results, load_results


@pytest.fixture
def results() -> Results:
    return make_results()


def shown(results: Results, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_results(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rows_have_a_cell_for_every_column(results: Results) -> None:
    tables = all_tables(results)
    assert len(tables) == 5
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert len(set(table.columns)) == len(table.columns)


def test_numbers_of_a_model(results: Results) -> None:
    speed, work, limits, ratio, more = all_tables(results)
    assert speed.rows[0] == ["FlashSloth", "81", "2.00 s", "2.18 s", "120 ms", "120 ms", "8.3", "2.36 s", "7.50 GB"]
    assert work.rows[0] == ["FlashSloth", "20.0 ms", "1.20 s", "100 ms", "40.0 ms", "620 ms", "20.0 ms"]
    assert limits.rows[0] == ["FlashSloth", "3.20 B", "1.00 T", "1.00 s", "50 %", "101 ms", "84 %"]
    assert ratio.rows[1] == ["Qwen2-VL-2B", "3.90x", "2.00x", "3.61x"]
    assert more.rows == [["FlashSloth", "400 ms", "8", "50.0", "16.5 s"], *more.rows[1:]]


def test_what_was_not_measured_is_a_dash(results: Results) -> None:
    results.subjects[0].peak_bytes = None
    assert all_tables(results)[0].rows[0][-1] == NOTHING


def test_a_narrow_terminal_shows_less_and_wraps_nothing(results: Results) -> None:
    assert "p95" in shown(results, 120)
    narrow = shown(results, 80)
    assert "p95" not in narrow
    table_rows = [line for line in narrow.splitlines() if line.startswith(("FlashSloth", "Qwen2-VL-2B"))]
    assert all(len(line) <= 80 for line in table_rows)
    assert sum(line.startswith("Qwen2-VL-2B") for line in table_rows) == 4


def test_remarks(results: Results) -> None:
    assert list(remarks(results)) == [
        "Beside the runs the machine read 50.0 GB/s to 50.0 GB/s, 50.0 GB/s in the middle: a token's limit is that of "
        "its own runs.",
        "The machine was quiet: none of 10 runs was disturbed.",
        "MiniCPM-V 2 failed (build: killed).",
    ]
    results.subjects[0].runs[0].disturbed = True
    results.subjects[1].discarded = 3
    results.subjects[2].in_turns = True
    results.machine_disturbed = True
    text = " ".join(remarks(results))
    assert "3 runs were thrown away and repeated, and 1 of the 10 that count" in text
    assert "made again for every block of runs: Qwen2-VL-2B." in text
    assert "shares of them too high" in text


def test_markdown_has_every_table_and_plot(results: Results) -> None:
    text = markdown(results, [("a.png", "A plot")])
    assert "![A plot](a.png)" in text
    assert text.count("\n| --- |") == 5
    for table in all_tables(results):
        for row in table.rows:
            assert f"| {' | '.join(row)} |" in text


def test_a_folder_of_files(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    written = write_report(results, folder)
    assert {path.name for path in written} == {path.name for path in folder.iterdir()}
    assert load_results(folder / RESULTS_FILE) == results
    text = (folder / MARKDOWN_FILE).read_text(encoding="utf-8")
    for path in written[2:]:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"]({path.name})" in text


def test_nothing_measured_is_no_plot(results: Results, tmp_path: Path) -> None:
    results.subjects = results.subjects[-1:]
    results.sittings = []
    assert [path.name for path in write_report(results, tmp_path)] == [RESULTS_FILE, MARKDOWN_FILE]
