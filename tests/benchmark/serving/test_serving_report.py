"""Serving's figures: what holds, what is kept while it is measured, and what people see of it."""

from pathlib import Path

import pytest

from flashsloth.benchmark.serving import report
from flashsloth.benchmark.serving.cost import Level
from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.suite import NAMES, chosen
from flashsloth.benchmark.serving.true_size import TrueSize
from flashsloth.errors import BenchmarkError

LEVELS = [
    Level(clients, 1000.0 + clients, 1200.0, 0.01 * clients, 0.02 * clients, 0.5, 1.5) for clients in (1, 32, 1024)
]


def row(name: str = "L1") -> RowResult:
    made = RowResult(name)
    made.add("requests", 10_000, least=10_000)
    made.add("memory a request", 1234.5, "bytes", most=5000)
    made.add("answers a second", 81.25)
    return made


def test_a_row_holds_while_all_its_figures_do_and_nothing_is_wrong() -> None:
    held = row()
    assert held.holds
    assert not held.missed
    held.add("p99 of /health/live", 0.3, "s", most=0.25)
    assert not held.holds
    assert held.missed == ["p99 of /health/live: 0.3 s; expected at most 0.25 s"]
    broken = row()
    broken.wrong.append("request 7: no end within 120 s")
    assert not broken.holds
    assert broken.missed == broken.wrong


def test_what_was_kept_is_read_again_and_the_last_run_of_a_row_counts(tmp_path: Path) -> None:
    worse = row()
    worse.wrong.append("request 7: status 500")
    sizes = TrueSize("FlashSloth", 4, 3.5, 2.5, 9.1)
    for one in (worse, row("P1"), *LEVELS, sizes, row()):
        report.keep(one, tmp_path)
    kept = report.load_kept(tmp_path)
    assert sorted(map(str, kept)) == sorted(map(str, [row(), row("P1"), *LEVELS, sizes]))
    assert kept == report.load_kept(tmp_path / report.LINES_FILE)


@pytest.mark.parametrize("line", ["", "{}", "[1]", '{"kind": "row"}', '{"kind": "other", "holds": true}', "not JSON"])
def test_other_files_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / report.LINES_FILE).write_text(line + "\n")
    with pytest.raises(BenchmarkError, match=r"serving.jsonl: line 1 is no result"):
        report.load_kept(tmp_path)


def test_the_report_has_every_figure_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    missed = row("L2")
    missed.wrong += [f"request {number}: another answer" for number in range(9)]
    kept: list[report.Kept] = [row(), missed, *LEVELS, TrueSize("FlashSloth", 8, 3.5, 2.5, 9.1)]
    for path in report.write_report(kept, tmp_path)[1:]:
        assert path.stat().st_size > 500
    text = (tmp_path / report.MARKDOWN_FILE).read_text()
    for expected in (
        "1,234",
        "at most 5,000 bytes",
        "request 0: another answer",
        "and 4 more",
        "1,024",
        "83%",
        "2.5 s",
    ):
        assert expected in text


def test_rows_are_chosen_by_name_in_the_tables_order() -> None:
    assert chosen(None) == NAMES
    assert chosen(["P1", "L3"]) == ("L3", "P1")
    with pytest.raises(BenchmarkError, match="there is no row 'L9'; expected some of L1, L2"):
        chosen(["L9"])
