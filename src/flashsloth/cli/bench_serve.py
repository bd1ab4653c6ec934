"""`flashsloth bench serve`: whether a server holds under load, and what it costs beside the same work without one.

In: rows of the table of figures, by name. Out: each row as held or missed, with its figures; with `--out`, a line of
JSON each as it comes, tables and pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.terminal import CommandError

if TYPE_CHECKING:
    from flashsloth.benchmark.serving.report import Kept

EXAMPLES = (
    "flashsloth bench serve --only L1,L3,concurrency",
    "flashsloth bench serve --share 0.05",
    "flashsloth bench serve --out runs/serve",
    "flashsloth bench serve --model true-size --peer --out runs/serve",
    "flashsloth bench serve --from runs/serve --out docs/figures",
)
NANO, TRUE_SIZE = "nano", "true-size"
PACKAGES = ("fastapi", "uvicorn", "httptools", "llguidance", "prometheus_client")


def serve(
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="ROW,...", help="Some of L1 to B1 and concurrency; by default all."),
    ] = None,
    share: Annotated[float, typer.Option("--share", metavar="SHARE", help="Of the full counts.")] = 1.0,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="nano: the rows. true-size: random weights, 1, 4, 8 clients.")
    ] = NANO,
    peer: Annotated[
        bool, typer.Option("--peer", help="With true-size: then a peer under `transformers serve`, too.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write JSON lines, Markdown and plots there.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Show an earlier run; measure nothing.")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Put a server under load: as many clients as it takes, clients that leave, faults, signals, kills.

    Exits with 1 where a row is missed. The full counts take some two and a half hours, D1 and D2 most of them; each row
    says how long it takes before it starts. Figures of time need a machine that does nothing else.
    """
    if not 0 < share <= 1:
        raise CommandError(f"--share is {share:g}; expected more than 0 and at most 1")
    if model not in (NANO, TRUE_SIZE):
        raise CommandError(f"--model is {model!r}; expected {NANO} or {TRUE_SIZE}")
    if model == TRUE_SIZE and only is not None:
        raise CommandError(f"--only and --model {TRUE_SIZE} were both given; expected one of them")
    if peer and model != TRUE_SIZE:
        raise CommandError(f"--peer was given without --model {TRUE_SIZE}; expected both")
    from flashsloth.cli.bench import check_out

    check_out(out)
    if source is None:
        _check_extra()
    from flashsloth.benchmark.serving import report

    terminal.quiet_libraries()
    kept: list[Kept] = []
    if source is not None:
        kept = report.load_kept(source)
    else:
        for one in _measured(model, only, share, peer):
            kept.append(one)
            if out is not None:
                report.keep(one, out)
            if not as_json:
                report.print_tables([one], terminal.stdout())
        if out is not None:
            kept = report.load_kept(out)  # with rows of earlier runs into the same folder
    if as_json:
        terminal.print_json([report.described(one) for one in kept])
    elif source is not None:
        report.print_tables(kept, terminal.stdout())
    if out is not None:
        for path in report.write_report(kept, out):
            terminal.print_note(str(path))
    if any(not report.holds(one) for one in kept):
        raise typer.Exit(1)


def _measured(model: str, only: str | None, share: float, peer: bool) -> Iterator[Kept]:
    import tempfile

    from flashsloth.benchmark.serving.suite import chosen, run_rows
    from flashsloth.benchmark.serving.true_size import measure_true_size

    say = terminal.print_progress
    if model == NANO:
        yield from run_rows(chosen(None if only is None else [one.strip() for one in only.split(",")]), share, say)
        return
    for is_peer in (False, True) if peer else (False,):
        with tempfile.TemporaryDirectory(prefix="flashsloth-true-size-") as folder:
            yield from measure_true_size(Path(folder), say, peer=is_peer)


def _check_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise CommandError(f"a server needs {missing[0]}, which is not installed: pip install 'flashsloth[serve]'")
