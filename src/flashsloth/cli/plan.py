"""`flashsloth plan`: what a model, or a recipe's training, would take on a machine, before anything is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.plan_training import is_recipe, plan_recipe
from flashsloth.cli.terminal import CommandError
from flashsloth.planning import NEW_TOKENS, TEXT_TOKENS

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from flashsloth.planning.latency import Plan
    from flashsloth.planning.machine import Machine
    from flashsloth.planning.model_shape import KnownModel

EXAMPLES = (
    "flashsloth plan flashsloth --dtype bfloat16",
    "flashsloth plan flashsloth-hd --pictures 2 --tokens 200 --new-tokens 500",
    "flashsloth plan runs/mine/final --quantize int4 --batch 8",
    "flashsloth plan flashsloth --device cuda --bandwidth 4300 --rate 790 --memory 141",
    "flashsloth plan recipes/flashsloth.yaml --set model.path=flashsloth --devices 8 --memory 80 --rate 250",
)
AUTO = "auto"
DEVICES = ("cpu", "cuda", "mps")
MOST = 1e9
"""Of GB, GB/s and TFLOP/s: more than any machine has."""
MEGA, GIGA, TERA = 1e6, 1e9, 1e12

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="flashsloth or flashsloth-hd (the published sizes), a folder, or a name on the hub; or RECIPE.yaml, for "
        "its training; without it, the small model.",
    ),
]
Pictures = Annotated[int, typer.Option("--pictures", metavar="N", help="Pictures of each prompt.")]
TextTokens = Annotated[
    int | None,
    typer.Option("--tokens", metavar="T", help="Text of each prompt, in tokens, system text and all [default: 64]."),
]
Devices = Annotated[int, typer.Option("--devices", metavar="N", help="Of a recipe's training.")]
NewTokens = Annotated[int, typer.Option("--new-tokens", metavar="N", help="Tokens of each answer.")]
Batch = Annotated[int, typer.Option("--batch", metavar="B", help="Prompts that are answered at once.")]
Bandwidth = Annotated[
    float | None, typer.Option("--bandwidth", metavar="GB/S", help="What a machine that is not here reads.")
]
Rate = Annotated[
    float | None, typer.Option("--rate", metavar="TFLOP/S", help="The same: its matrix products in this precision.")
]
Memory = Annotated[float | None, typer.Option("--memory", metavar="GB", help="The same: what it holds.")]


def plan(
    model: Model = None,
    pictures: Pictures = 1,
    text_tokens: TextTokens = None,
    new_tokens: NewTokens = NEW_TOKENS,
    batch: Batch = 1,
    device: arguments.Device = AUTO,
    dtype: arguments.Dtype = AUTO,
    quantize: arguments.Quantize = None,
    bandwidth: Bandwidth = None,
    rate: Rate = None,
    memory: Memory = None,
    devices: Devices = 1,
    settings: arguments.Settings = None,
    as_json: arguments.Json = False,
) -> None:
    """Say what a model would take here, before it is loaded: memory, time to the first token, tokens a second.

    Measures this machine for some seconds, unless --bandwidth and --rate describe another one. Of a recipe: what its
    training holds on each of N devices, and, with --rate, the most samples a second.
    """
    if is_recipe(model):
        plan_recipe(
            Path(str(model)),
            settings or [],
            devices=devices,
            pictures=pictures,
            text_tokens=text_tokens,
            rate=rate,
            memory=memory,
            as_json=as_json,
        )
        return
    if devices != 1:
        raise CommandError(f"--devices is {devices}, which is for a recipe's training; expected RECIPE.yaml with it")
    _check_machine(bandwidth, rate, memory)
    with terminal.waiting(f"reading {model or 'the small model'}"):
        from flashsloth.planning.flops import Precision, Workload
        from flashsloth.planning.latency import check, make_plan
        from flashsloth.planning.model_shape import find_model

        work = Workload(pictures, TEXT_TOKENS if text_tokens is None else text_tokens, new_tokens, batch)
        known = find_model(model, **arguments.settings_of(settings))
        where = _device(device, elsewhere=rate is not None)
        precision = Precision(_dtype(dtype, where, known), quantize)
        cost = check(known.config, precision, work, str(where))
    if bandwidth is None or rate is None:
        machine = _measure(where, precision.dtype)
    else:
        machine = _elsewhere(where, precision.computed, bandwidth, rate, memory)
    made = make_plan(cost, precision, work, machine)
    if as_json:
        terminal.print_json({"model": known.name, **made.to_dict()})
    else:
        _print(known.name, made)


def _print(name: str, made: Plan) -> None:
    """The plan for a person, and what to mind."""
    console = terminal.stdout()
    console.print(f"[bold]{name}[/bold]: {_describe_work(made)}", soft_wrap=True)
    console.print(_table(made))
    remarks = [_shortage(made)] if made.fits is False else []
    if made.first_token_seconds is None:
        remarks.append(
            f"how near to these limits {made.precision.stored} comes on {made.machine.device} has not been measured "
            f"(`flashsloth bench` does): expect less than they say"
        )
    for remark in remarks:
        console.print(f"[bold yellow]! {remark}[/bold yellow]", soft_wrap=True)


def _check_machine(bandwidth: float | None, rate: float | None, memory: float | None) -> None:
    """A machine that is not here is described whole, or not at all."""
    given = {"--bandwidth": bandwidth, "--rate": rate, "--memory": memory}
    for option, value in given.items():
        if value is not None and not 0 < value <= MOST:
            raise CommandError(f"{option} is {value:g}; expected more than 0, and at most {MOST:g}")
    if (bandwidth is None) != (rate is None) or (memory is not None and rate is None):
        found = " and ".join(option for option, value in given.items() if value is not None)
        raise CommandError(f"found {found} alone; expected --bandwidth and --rate together to describe another machine")


def _device(name: str, *, elsewhere: bool) -> torch.device:
    """The device that is meant; one that is elsewhere need not be available here."""
    import torch

    from flashsloth.inference.load import choose_device

    if not elsewhere:
        return choose_device(name)
    try:
        chosen = torch.device("cpu" if name == AUTO else name)
    except RuntimeError as error:
        raise CommandError(f"--device is {name!r}; expected cpu, cuda or mps") from error
    if chosen.type not in DEVICES:
        raise CommandError(f"--device is {name!r}; expected cpu, cuda or mps")
    return chosen


def _dtype(name: str, device: torch.device, known: KnownModel) -> torch.dtype:
    """The precision that `load` would choose."""
    from flashsloth.inference.load import choose_dtype
    from flashsloth.planning.flops import Cost

    parameters = sum(Cost.of(known.config).parameters.values()) if name == AUTO else 0
    return choose_dtype(name, device, known.stored, parameters * known.stored.itemsize)


def _measure(device: torch.device, dtype: torch.dtype) -> Machine:
    """This machine's limits."""
    from flashsloth.planning.machine import measure_machine

    with terminal.waiting("measuring this machine, some seconds; nothing else should run meanwhile"):
        return measure_machine(device, [dtype])


def _elsewhere(device: torch.device, precision: str, bandwidth: float, rate: float, memory: float | None) -> Machine:
    """A machine that is not here."""
    import importlib.metadata

    from flashsloth.planning.machine import Machine

    return Machine(
        name="the machine described",
        device=str(device),
        cores=0,
        memory_bytes=0 if memory is None else int(memory * GIGA),
        read_bandwidth=bandwidth * GIGA,
        matrix_rate={precision: rate * TERA},
        torch=importlib.metadata.version("torch"),
        transformers=importlib.metadata.version("transformers"),
    )


def _describe_work(made: Plan) -> str:
    """What is asked of what, on what: two lines."""
    work, machine = made.work, made.machine
    quantized = f", weights in {made.precision.quantize}" if made.precision.quantize else ""
    several = f", {work.batch} at once" if work.batch > 1 else ""
    cores = f" ({machine.cores} cores)" if machine.cores else ""
    return (
        f"{sum(made.parameters.values()) / MEGA:,.0f} M parameters, {made.precision.computed}{quantized}, "
        f"on {machine.device}: {machine.name}{cores}\n"
        f"{made.positions:,} tokens of prompt, {made.visual_tokens:,} of them for {work.pictures} "
        f"picture{'' if work.pictures == 1 else 's'}; {work.new_tokens:,} of answer{several}"
    )


def _table(made: Plan) -> Table:
    """Memory by part, then the times: expected, at the limit, the share of it, and what that rests on."""
    from rich.table import Table

    from flashsloth.planning.machine import readable

    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("", style="cyan")
    for title in ("expected", "limit", "share"):
        table.add_column(title, justify="right")
    table.add_column("rests on", style="dim")
    capacity = made.machine.memory_bytes
    table.add_row("[bold]memory[/bold]")
    for name, size in dataclasses.asdict(made.memory).items():
        table.add_row(f"  {name.replace('_', ' ')}", readable(size, "B"))
    share = f"{made.memory.total / capacity:.0%}" if capacity else ""
    table.add_row("  in all", readable(made.memory.total, "B"), readable(capacity, "B") if capacity else "", share)
    table.add_row()
    table.add_row("[bold]time[/bold]")
    for stage in made.stages:
        table.add_row(f"  {stage.name}", *_times(stage.seconds, stage.limit_seconds), stage.rests_on)
    table.add_row("  [bold]first token[/bold]", *_times(made.first_token_seconds, made.first_token_limit))
    table.add_row("  each token after", *_times(made.step.seconds, made.step.limit_seconds), made.step.rests_on)
    speeds = [_speed(made.tokens_per_second), _speed(made.tokens_per_second_limit)]
    table.add_row("  [bold]tokens a second[/bold]", *speeds)
    table.add_row("  the whole answer", *_times(made.response_seconds, made.response_limit))
    if (following := made.next_question) is not None:
        times = _times(following.seconds, following.limit_seconds)
        table.add_row("  another question, first token", *times, following.rests_on)
    return table


def _times(seconds: float | None, limit: float) -> tuple[str, str, str]:
    """Expected, limit, and the share of the limit that is reached; empty where there is none."""
    from flashsloth.planning.machine import readable

    expected = "" if seconds is None else readable(seconds, "s")
    share = f"{limit / seconds:.0%}" if seconds and limit else ""
    return expected, readable(limit, "s") if limit else "", share


def _speed(tokens_per_second: float | None) -> str:
    from flashsloth.planning.machine import readable

    return "" if tokens_per_second is None else readable(tokens_per_second, "").strip()


def _shortage(made: Plan) -> str:
    """What to do where memory does not suffice."""
    from flashsloth.planning.machine import readable

    missing = readable(made.memory.total - made.machine.memory_bytes, "B")
    ways = ["a smaller batch"] if made.work.batch > 1 else []
    if made.precision.dtype.itemsize > 2:
        ways.append("--dtype bfloat16")
    if made.precision.quantize != "int4" and made.machine.device == "cpu":
        ways.append("--quantize int4")
    return f"does not fit: {missing} of memory are missing; try {' or '.join(ways or ['a machine with more'])}"
