"""`flashsloth bench`: measures speed, beside other models and beside what the machine can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.commands import arguments
from flashsloth.commands.arguments import check_seed
from flashsloth.commands.bench_device import earlier_busy, measure_busy, show_busy, write_busy
from flashsloth.commands.bench_training import TRAINING_LAYERS, bench_training, check_threads
from flashsloth.commands.failures import CommandError

if TYPE_CHECKING:
    from flashsloth.benchmark.results import Results
    from flashsloth.benchmark.subjects import Suite

EXAMPLES = (
    "flashsloth bench --quick",
    "flashsloth bench --suite cpu --out runs/bench",
    "flashsloth bench --only flashsloth,qwen2-vl-2b --repeats 9",
    "flashsloth bench --from runs/bench/results.json --out docs/figures",
    "flashsloth bench --training --out runs/bench",
)
REPEATS = 5
PLOT_PACKAGE = "matplotlib"
"""What `pip install flashsloth[bench]` adds for `--out`."""
ALL_THREADS = 0
ERASE_LINE = "\x1b[2K"
"""What terminals understand as that."""


def bench(
    suite: Annotated[
        str | None, typer.Option("--suite", metavar="NAME", help="cpu or gpu; without it, gpu where there is one.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the small model, in seconds.")] = False,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAME,...", help="These subjects; the others run beside the first.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", help="Runs of each subject.")] = REPEATS,
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", help="Text tokens of the prompt.")] = 64,
    new_tokens: Annotated[int, typer.Option("--new-tokens", metavar="N", help="Tokens of each answer.")] = 64,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", metavar="N", help="So many at once, for all; 1 for none. Without it, the suite's choice."
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", help="Of the processor; 0 for as many as torch takes.")
    ] = ALL_THREADS,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, pictures and ids.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write JSON, Markdown and plots there.")
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="Training's memory and time instead, beside all visual tokens.")
    ] = False,
    layers: Annotated[
        int, typer.Option("--layers", metavar="N", help="With --training: of each tower, of what is measured.")
    ] = TRAINING_LAYERS,
    busy: Annotated[
        bool, typer.Option("--busy/--no-busy", help="With the gpu suite: many pictures and training steps, too.")
    ] = True,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="RESULTS.json", help="Show an earlier run; measure nothing.")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Measure how fast it answers, beside others, beside the machine's limits.

    One picture in memory, 64 text tokens, 64 new tokens; models of true size with random weights, since speed does not
    depend on what they say. Takes a quiet machine, and notices if it is not.
    """
    from flashsloth.commands import terminal

    check_threads(threads)
    check_seed(seed)
    if training:
        bench_training(quick, layers, batch, repeats, threads or None, out, source, as_json)
        return
    _check_out(out)
    if source is not None:
        from flashsloth.benchmark.results import load_results

        results, more = load_results(source), earlier_busy(source)
    else:
        name, chosen = _choose_suite(suite, quick)
        job = tokens, new_tokens, seed
        results = _measure(name, chosen, only, repeats, job, batch, threads, out)
        with _telling() as say:
            more = measure_busy(chosen, only, job, say) if busy else None
    if as_json:
        terminal.print_json(results.to_dict())
    else:
        from flashsloth.benchmark.report import print_results

        print_results(results, terminal.stdout())
        if more is not None:
            show_busy(more)
    if out is not None:
        from flashsloth.benchmark.report import write_report

        written = write_report(results, out)
        for path in written if more is None else [*written, *write_busy(more, out)]:
            terminal.print_note(str(path))


def _measure(
    name: str,
    suite: Suite,
    only: str | None,
    repeats: int,
    job: tuple[int, int, int],
    batch: int | None,
    threads: int,
    out: Path | None,
) -> Results:
    """Check everything that was asked for, then measure; what is known is kept in `out` from subject to subject."""
    from flashsloth.benchmark.job import StandardJob
    from flashsloth.benchmark.memory import available_bytes
    from flashsloth.benchmark.results import RESULTS_FILE, save_results
    from flashsloth.benchmark.subjects import find_subjects
    from flashsloth.benchmark.suite import Bench, Settings
    from flashsloth.benchmark.worker_process import WorkerProcess

    specs = find_subjects(suite.names if only is None else [part.strip() for part in only.split(",")])
    settings = Settings(
        suite=name,
        device=suite.device,
        job=StandardJob(*job),
        repeats=repeats,
        batch=suite.batch if batch is None else batch,
        batched=suite.batched if batch is None else tuple(spec.name for spec in specs),
    )
    _check_device(suite.device)

    def keep(results: Results) -> None:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            save_results(results, out / RESULTS_FILE)

    with _telling() as say:
        return Bench(settings, lambda: WorkerProcess(threads or None), available_bytes, say, keep).run(specs)


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """A line that says what is done, on a terminal. A spinner would take time from what is measured."""
    from flashsloth.commands import terminal

    console = terminal.stderr()
    clear = f"\r{ERASE_LINE}" if console.is_terminal else ""

    def say(text: str) -> None:
        if console.is_terminal:
            console.file.write(f"{clear}{text}")
            console.file.flush()

    try:
        yield say
    finally:
        console.file.write(clear)
        console.file.flush()


def _choose_suite(name: str | None, quick: bool) -> tuple[str, Suite]:
    """The suite asked for, or the one that suits this machine."""
    from flashsloth.benchmark.subjects import QUICK, find_suite

    if quick and name is not None:
        raise CommandError(f"--quick and --suite {name} were both given; expected one of them")
    if name is None:
        name = QUICK if quick else "gpu" if _has_gpu() else "cpu"
    return name, find_suite(name)


def _check_device(device: str) -> None:
    if device == "cuda" and not _has_gpu():
        raise CommandError("there is no GPU that this torch can use; expected one for --suite gpu: use --suite cpu")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _check_out(out: Path | None) -> None:
    """Find out before anything is measured whether the report can be written."""
    if out is None:
        return
    from importlib.util import find_spec

    if find_spec(PLOT_PACKAGE) is None:
        raise CommandError(f"--out needs {PLOT_PACKAGE} for its plots: pip install 'flashsloth[bench]'")
    out.mkdir(parents=True, exist_ok=True)
    probe = out / ".writable"
    probe.touch()
    probe.unlink()
