"""`flashsloth warmup`: answers once, and says what the first answers cost beyond the later ones."""

from __future__ import annotations

from typing import Annotated

import typer

from flashsloth.cli import arguments

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
    from flashsloth.cli import terminal
    from flashsloth.cli.ask import describe

    sloth = terminal.load_quietly(model, device, dtype, quantize)
    took = sloth.warm_up(batch)
    if as_json:
        terminal.print_json(
            {
                "model": sloth.name,
                "device": str(sloth.device),
                "dtype": str(sloth.dtype).removeprefix("torch."),
                "seconds": round(took.seconds, 3),
                "recorded": took.recorded,
            }
        )
        return
    lines = [f"{describe(sloth)}: ready after {took.seconds:.1f} s"]
    if took.recorded:
        lines.append(f"{took.recorded} passes are recorded, for as long as a process lives")
    for line in lines:
        terminal.stdout().print(line, markup=False, soft_wrap=True)


__all__ = ["EXAMPLES", "warmup"]
