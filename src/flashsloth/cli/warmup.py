"""`flashsloth warmup`: answers once, and says what the first answers cost beyond the later ones."""

from __future__ import annotations

from typing import Annotated

import typer

from flashsloth.cli import arguments, terminal

EXAMPLES = (
    "flashsloth warmup --model Tongbo/FlashSloth-3.2B",
    "flashsloth warmup --model runs/mine/final --device cuda --batch 64",
)


def warmup(
    model: arguments.Model = None,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="The most answers at once.")] = 1,
    as_json: arguments.Json = False,
) -> None:
    """Answer drawn pictures until everything is ready, and say what it took.

    Programs call `warm_up()` for the same; what is recorded lives as long as a process.
    """
    sloth = terminal.load_quietly(model, device, dtype, quantize)
    took = sloth.warm_up(batch)
    if as_json:
        facts = terminal.model_facts(sloth)
        terminal.print_json({**facts, "seconds": round(took.seconds, 3), "recorded": took.recorded})
        return
    terminal.print_line(f"{terminal.describe(sloth)}: ready after {took.seconds:.1f} s")
    if took.recorded:
        terminal.print_line(f"{took.recorded} passes are recorded, for as long as a process lives")
