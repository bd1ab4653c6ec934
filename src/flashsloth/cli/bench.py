"""`flashsloth bench`: measures speed, beside other models and beside what the machine can do.

single answers       each model of the suite: `flashsloth.benchmark.runner`
a device at work     with the gpu suite, many pictures and training steps too: `flashsloth.benchmark.device`
serve                a server under load: `bench_serve.py`
--training           training's memory and time, beside the same backbones with all visual tokens
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.terminal import CommandError

if TYPE_CHECKING:
    from flashsloth.benchmark.device import DeviceResults
    from flashsloth.benchmark.results import Results
    from flashsloth.benchmark.workload import Suite


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
"""The escape sequence that erases a line of a terminal."""
TRAINING_LAYERS = 4
"""Of each tower: at the published widths, stage 2 of the larger model then takes less than 12 GB."""
TRAINING_ROWS = 2
MOST_THREADS = 4096
TRAINING_SIZE = "flashsloth"


def bench(
    context: typer.Context,
    suite: Annotated[
        str | None, typer.Option("--suite", metavar="NAME", help="cpu or gpu; without it, gpu where there is one.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the small model, in seconds.")] = False,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAME,...", help="These models; the others run beside the first.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", help="Runs of each model.")] = REPEATS,
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
    if context.invoked_subcommand is not None:
        return
    if not 0 <= threads <= MOST_THREADS:
        raise CommandError(f"--threads is {threads}; expected 0 (as many as torch takes) to {MOST_THREADS}")
    arguments.check_seed(seed)
    if training:
        _bench_training(quick, layers, batch, repeats, threads or None, out, source, as_json)
        return
    check_out(out)
    if source is not None:
        results, more = _earlier_run(source)
    else:
        name, chosen = _choose_suite(suite, quick)
        job = tokens, new_tokens, seed
        results = _measure(name, chosen, only, repeats, job, batch, threads, out)
        with _status_line() as say:
            more = _measure_device(chosen, only, job, say) if busy else None
    _report(results, more, out, as_json)


def _earlier_run(source: Path) -> tuple[Results, DeviceResults | None]:
    """What a run left; of a device at work, if it measured that."""
    from flashsloth.benchmark.device import DEVICE_FILE, load_device_results
    from flashsloth.benchmark.results import load_results

    beside = (source if source.is_dir() else source.parent) / DEVICE_FILE
    return load_results(source), load_device_results(beside) if beside.is_file() else None


def _report(results: Results, more: DeviceResults | None, out: Path | None, as_json: bool) -> None:
    """Print what was measured, and write it into a folder if there is one."""
    from flashsloth.benchmark.device_report import print_device_results, write_device_report
    from flashsloth.benchmark.report import print_results, write_report

    if as_json:
        terminal.print_json(dataclasses.asdict(results))
    else:
        print_results(results, terminal.stdout())
        if more is not None:
            print_device_results(more, terminal.stdout())
    if out is not None:
        written = write_report(results, out)
        for path in written if more is None else [*written, *write_device_report(more, out)]:
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
    """Check everything that was asked for, then measure; what is known is kept in `out` from model to model."""
    from flashsloth.benchmark.results import RESULTS_FILE, save_results
    from flashsloth.benchmark.runner import Bench, Settings
    from flashsloth.benchmark.worker_process import WorkerProcess
    from flashsloth.benchmark.workload import StandardJob, find_models
    from flashsloth.planning.machine import available_bytes

    specs = find_models(suite.names if only is None else [part.strip() for part in only.split(",")])
    settings = Settings(
        suite=name,
        device=suite.device,
        job=StandardJob(*job),
        repeats=repeats,
        batch=suite.batch if batch is None else batch,
        batched=suite.batched if batch is None else tuple(spec.name for spec in specs),
    )
    if suite.device == "cuda" and not _has_gpu():
        raise CommandError("there is no GPU that this torch can use; expected one for --suite gpu: use --suite cpu")

    def keep(results: Results) -> None:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            save_results(results, out / RESULTS_FILE)

    with _status_line() as say:
        return Bench(settings, lambda: WorkerProcess(threads or None), available_bytes, say, keep).run(specs)


@contextmanager
def _status_line() -> Iterator[Callable[[str], None]]:
    """A line that says what is done, on a terminal. A spinner would take time from what is measured."""
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
    from flashsloth.benchmark.workload import QUICK, find_suite

    if quick and name is not None:
        raise CommandError(f"--quick and --suite {name} were both given; expected one of them")
    if name is None:
        name = QUICK if quick else "gpu" if _has_gpu() else "cpu"
    return name, find_suite(name)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def check_out(out: Path | None) -> None:
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


def _measure_device(
    suite: Suite, only: str | None, job: tuple[int, int, int], say: Callable[[str], None]
) -> DeviceResults | None:
    """Measure what a suite names beyond single answers; None if it names nothing."""
    wanted = None if only is None else [part.strip() for part in only.split(",")]
    names = [name for name in suite.busy if wanted is None or name in wanted]
    trained = [name for name in suite.trained if wanted is None or name in wanted]
    if not names and not trained:
        return None
    from flashsloth.benchmark.device import DeviceSettings, measure_device
    from flashsloth.benchmark.worker_process import WorkerProcess
    from flashsloth.benchmark.workload import MODELS, StandardJob

    specs = [MODELS[name] for name in names]
    settings = DeviceSettings(suite.device, StandardJob(*job))
    return measure_device(specs, trained, settings, WorkerProcess, say)


def _bench_training(
    quick: bool,
    layers: int,
    rows: int | None,
    steps: int,
    threads: int | None,
    out: Path | None,
    source: Path | None,
    as_json: bool,
) -> None:
    """Measure, or read an earlier run; print it, and write it into a folder if there is one."""
    if layers < 1:
        raise CommandError(f"--layers is {layers}; expected at least 1")
    from flashsloth.benchmark import training as training_bench
    from flashsloth.benchmark import training_report

    terminal.quiet_libraries()
    if source is not None:
        results = training_bench.load_training_results(source)
    else:
        results = training_bench.run_training_bench(
            None if quick else TRAINING_SIZE,
            None if quick else layers,
            TRAINING_ROWS if rows is None else rows,
            steps,
            threads,
            terminal.print_note,
        )
    if as_json:
        terminal.print_json(dataclasses.asdict(results))
    else:
        terminal.print_line(training_report.markdown(results))
    if out is not None:
        for path in training_report.write_training_report(results, out):
            terminal.print_note(str(path))
