"""`flashsloth plan RECIPE.yaml`: what training would take on each device, before anything is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsloth.cli import terminal
from flashsloth.cli.terminal import CommandError

if TYPE_CHECKING:
    from rich.table import Table

    from flashsloth.model.configuration_flashsloth import FlashSlothConfig
    from flashsloth.training.plan import TrainingPlan
    from flashsloth.training.recipe import Recipe

SUFFIXES = (".yaml", ".yml")
MEGA, GIGA, TERA = 1e6, 1e9, 1e12
PARTS = {
    "weights": "",
    "gradients": "float32; bfloat16 under DeepSpeed",
    "optimizer": "AdamW's two averages; under DeepSpeed, float32 weights too",
    "activations": "at the moment when most is held",
    "communication": "what the engine gathers or sends at once",
    "host": "not on the device: in the processor's memory",
}
"""Field of `TrainingMemory` -> what there is to say about it."""


def is_recipe(name: str | None) -> bool:
    """Whether what is to be planned is a training recipe."""
    return name is not None and Path(name).suffix in SUFFIXES


def plan_recipe(
    path: Path,
    changes: list[str],
    *,
    devices: int,
    pictures: int,
    text_tokens: int | None,
    rate: float | None,
    memory: float | None,
    as_json: bool,
) -> None:
    """Plan every stage of a recipe that learns answers, and print it."""
    for option, value in (("--devices", devices), ("--rate", rate), ("--memory", memory)):
        if value is not None and not value > 0:
            raise CommandError(f"{option} is {value:g}; expected more than 0")
    from flashsloth.training.recipe import load_recipe

    recipe = load_recipe(path, changes)
    with terminal.waiting(f"reading {path}"):
        from flashsloth.training.plan import plan_stage

        config = _config(recipe)
        planned = [stage for stage in recipe.stages if stage.learns_answers]
        plans = [
            plan_stage(
                config,
                stage,
                devices=devices,
                memory_bytes=None if memory is None else int(memory * GIGA),
                text_tokens=text_tokens,
                pictures=pictures,
            )
            for stage in planned
        ]
    matrix_rate = None if rate is None else rate * TERA
    if as_json:
        terminal.print_json({"recipe": recipe.name, "stages": [_json(plan, matrix_rate) for plan in plans]})
        return
    for plan in plans:
        _print(plan, matrix_rate, memory)
    left_out = len(recipe.stages) - len(planned)
    if left_out:
        terminal.stdout().print(f"not planned, since they learn patches: {left_out} of {len(recipe.stages)} stages")


def _config(recipe: Recipe) -> FlashSlothConfig:
    """The configuration of the model that a recipe starts from."""
    if recipe.model.path is not None:
        from flashsloth.planning.model_shape import find_model

        return find_model(recipe.model.path).config
    import torch

    from flashsloth.training.init_model import start_model

    with torch.device("meta"):
        model, _ = start_model(recipe.model, recipe.stages[0].attention)
    return model.config


def _json(plan: TrainingPlan, matrix_rate: float | None) -> dict[str, Any]:
    speed = None if matrix_rate is None else plan.samples_per_second(matrix_rate)
    return {**plan.to_dict(), "samples_per_second_limit": speed}


def _print(plan: TrainingPlan, matrix_rate: float | None, memory: float | None) -> None:
    """One stage for a person, and what to mind."""
    from flashsloth.planning.machine import readable
    from flashsloth.training.plan import USABLE

    console = terminal.stdout()
    rows, accumulated = plan.micro_batch.rows, plan.batch // (plan.micro_batch.rows * plan.devices)
    several = f"{plan.devices} devices ({plan.engine.kind})" if plan.devices > 1 else "1 device"
    console.print(
        f"[bold]{plan.stage}[/bold]: {plan.learning / MEGA:,.1f} M of {plan.parameters / MEGA:,.1f} M parameters "
        f"learn, on {several}\nbatch {plan.batch}: {rows} samples of {plan.positions} positions a device at a time, "
        f"{accumulated} times a step",
        soft_wrap=True,
    )
    console.print(_table(plan, memory))
    if matrix_rate is not None:
        speed = plan.samples_per_second(matrix_rate)
        console.print(
            f"at most {speed:,.1f} samples a second: {readable(plan.flops, 'FLOP')} each, {plan.devices} x "
            f"{readable(matrix_rate, 'FLOP/s')}",
            soft_wrap=True,
        )
    if memory is not None and not plan.fits(int(memory * GIGA)):
        console.print(
            f"[bold yellow]! does not fit: plan for {USABLE:.0%} of {memory:g} GB; try a smaller micro_batch_size, "
            f"activation_checkpointing: true, or engine: {{kind: fsdp2}} on more devices[/bold yellow]",
            soft_wrap=True,
        )
    console.print()


def _table(plan: TrainingPlan, memory: float | None) -> Table:
    """Memory of a device by part."""
    from rich.table import Table

    from flashsloth.planning.machine import readable

    table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    table.add_column("", style="cyan")
    table.add_column("", justify="right")
    table.add_column("", style="dim")
    for name, size in dataclasses.asdict(plan.memory).items():
        if name != "host" or size:
            note = f"{readable(plan.logits, 'B')} of it for logits" if name == "activations" else PARTS[name]
            table.add_row(f"  {name}", readable(size, "B"), note)
    share = "" if memory is None else f"{plan.memory.total / (memory * GIGA):.0%} of {memory:g} GB"
    table.add_row("  [bold]in all[/bold]", readable(plan.memory.total, "B"), share)
    with_or_without = ("with", "without") if plan.activation_checkpointing else ("without", "with")
    table.add_row(
        f"  {with_or_without[1]} checkpointing",
        readable(plan.memory_otherwise.total, "B"),
        f"the above is {with_or_without[0]} activation checkpointing",
    )
    return table
