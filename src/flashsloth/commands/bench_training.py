"""`flashsloth bench --training`: training's memory and time, beside the same towers with all visual tokens."""

from __future__ import annotations

from pathlib import Path

from flashsloth.commands.failures import CommandError

TRAINING_LAYERS = 4
"""Of each tower: at the published widths, stage 2 of the larger subject then takes less than 12 GB."""
ROWS = 2
MOST_THREADS = 4096
SIZE = "flashsloth"


def check_threads(threads: int) -> None:
    """Refuse a number of threads that no machine starts.

    Raises:
        CommandError: if it is below 0 or beyond MOST_THREADS.
    """
    if not 0 <= threads <= MOST_THREADS:
        raise CommandError(f"--threads is {threads}; expected 0 (as many as torch takes) to {MOST_THREADS}")


def bench_training(
    quick: bool,
    layers: int,
    rows: int | None,
    steps: int,
    threads: int | None,
    out: Path | None,
    source: Path | None,
    as_json: bool,
) -> None:
    """Measure, or read an earlier run; print it, and write it into a folder if there is one.

    Args:
        quick: the small model, as it is.
        layers: of each tower, otherwise.
        rows: samples a step; None for the usual.
        steps: that are timed.
        threads: of each process; None for as many as torch takes.
        out: a folder for JSON and Markdown.
        source: an earlier run's JSON.
        as_json: print that.
    """
    from flashsloth.commands import terminal

    if layers < 1:
        raise CommandError(f"--layers is {layers}; expected at least 1")
    from flashsloth.benchmark import training_bench, training_report

    terminal.quiet_libraries()
    if source is not None:
        results = training_bench.load_training_results(source)
    else:
        results = training_bench.run_training_bench(
            None if quick else SIZE,
            None if quick else layers,
            ROWS if rows is None else rows,
            steps,
            threads,
            terminal.print_note,
        )
    if as_json:
        terminal.print_json(results.to_dict())
    else:
        terminal.stdout().print(training_report.markdown(results), markup=False, soft_wrap=True)
    if out is not None:
        for path in training_report.write_training_report(results, out):
            terminal.print_note(str(path))


__all__ = ["TRAINING_LAYERS", "bench_training", "check_threads"]
