"""The command line: one table of commands, and how their errors end.

In: arguments. Out: text on stdout, everything else on stderr, and an exit code: 0; 2 for a user's mistake, in one line;
1 for a full disk and the like, or a fault of ours; 130 after Ctrl-C.

A command's module is light to import; what is heavy (torch, transformers) it imports when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple

import typer

from flashsloth.cli import (
    ablation,
    ask,
    batch,
    bench,
    bench_serve,
    chat,
    checkpoints,
    data,
    evaluate,
    evaluate_compare,
    evaluate_drift,
    evaluate_score,
    evaluate_tasks,
    merge,
    plan,
    serve,
    train,
    verify_batch,
    warmup,
    world,
)
from flashsloth.cli.terminal import INTERRUPTED, close_stdout, prepare_streams, report_failure


class Command(NamedTuple):
    """One row of the table: what runs, and what the help shows as examples."""

    run: Callable[..., None]
    examples: tuple[str, ...]

    @property
    def name(self) -> str:
        """What is typed."""
        return self.run.__name__.replace("_", "-")


ANSWERS, CHECKPOINTS, STUDY = "Ask", "Make and inspect checkpoints", "Train and measure"
COMMANDS: dict[str, tuple[Command, ...]] = {
    ANSWERS: (
        Command(ask.ask, ask.EXAMPLES),
        Command(chat.chat, chat.EXAMPLES),
        Command(serve.serve, serve.EXAMPLES),
        Command(batch.batch, batch.EXAMPLES),
        Command(warmup.warmup, warmup.EXAMPLES),
        Command(verify_batch.verify_batch, verify_batch.EXAMPLES),
    ),
    CHECKPOINTS: (
        Command(checkpoints.info, checkpoints.INFO_EXAMPLES),
        Command(checkpoints.new, checkpoints.NEW_EXAMPLES),
        Command(checkpoints.convert, checkpoints.CONVERT_EXAMPLES),
        Command(merge.merge, merge.EXAMPLES),
    ),
    STUDY: (
        Command(train.train, train.EXAMPLES),
        Command(world.world, world.EXAMPLES),
        Command(ablation.ablation, ablation.EXAMPLES),
        Command(plan.plan, plan.EXAMPLES),
    ),
}
"""Panel of the help -> its commands, in order."""
FIRST_STEPS = (
    'flashsloth ask photo.jpg "What color is the car?"',
    "flashsloth chat photo.jpg",
    "flashsloth eval world --count 100",
)
EVALUATIONS: tuple[Command, ...] = (
    Command(evaluate.world, evaluate.WORLD_EXAMPLES),
    Command(evaluate.pictures, evaluate.PICTURES_EXAMPLES),
    *(Command(run, examples) for run, examples in evaluate_tasks.BENCHMARKS),
    Command(evaluate_score.score, evaluate_score.EXAMPLES),
    Command(evaluate_compare.compare, evaluate_compare.EXAMPLES),
    Command(evaluate_drift.drift, evaluate_drift.EXAMPLES),
)
"""What `flashsloth eval` can measure with."""
BENCHMARKS: tuple[Command, ...] = (Command(bench_serve.serve, bench_serve.EXAMPLES),)
"""What `flashsloth bench` can measure beside models."""
DATA: tuple[Command, ...] = (
    Command(data.check, data.CHECK_EXAMPLES),
    Command(data.show, data.SHOW_EXAMPLES),
    Command(data.table, data.TABLE_EXAMPLES),
)
"""What `flashsloth data` can do."""

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


def _examples(lines: Sequence[str]) -> str:
    """The end of a help text."""
    return "\n".join(["[bold]Examples[/bold]", *(f"  [cyan]{line}[/cyan]" for line in lines)])


def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _add(where: typer.Typer, command: Command, panel: str | None = None) -> None:
    where.command(command.name, epilog=_examples(command.examples), rich_help_panel=panel)(command.run)


def _group(about: str, commands: Iterable[Command]) -> typer.Typer:
    """A command that has commands of its own."""
    group = typer.Typer(rich_markup_mode="rich")
    group.callback(invoke_without_command=True, help=about)(_help_without_command)
    for one in commands:
        _add(group, one)
    return group


def _bench_group() -> typer.Typer:
    """A command that does something by itself, and has commands of its own."""
    group = typer.Typer(rich_markup_mode="rich")
    group.callback(invoke_without_command=True, epilog=_examples(bench.EXAMPLES))(bench.bench)
    for one in BENCHMARKS:
        _add(group, one)
    return group


def _print_version(wanted: bool) -> None:
    if wanted:
        from flashsloth import __version__

        typer.echo(f"flashsloth {__version__}")
        raise typer.Exit


app = typer.Typer(
    add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False, context_settings=HELP_OPTIONS
)


@app.callback(invoke_without_command=True, epilog=_examples(FIRST_STEPS))
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Ask small vision-language models about pictures, and train and measure them."""
    _help_without_command(context)


for _panel, _commands in COMMANDS.items():
    for _command in _commands:
        _add(app, _command, _panel)
app.add_typer(_group("Count a model's right answers.", EVALUATIONS), name="eval", rich_help_panel=STUDY)
app.add_typer(_bench_group(), name="bench", rich_help_panel=STUDY)
app.add_typer(_group("Inspect training data before training on it.", DATA), name="data", rich_help_panel=STUDY)


@cache
def command() -> Any:
    """What parses command lines, made from the table once."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    prepare_streams()
    try:
        code = command().main(args=given, prog_name="flashsloth", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        close_stdout()
        return 1
    except Exception as error:  # the one place where errors become exit codes
        code = report_failure(error)
    try:
        sys.stdout.flush()
    except OSError:  # what was written before the error cannot be written either
        close_stdout()
        code = code or 1
    return code if isinstance(code, int) else 0
