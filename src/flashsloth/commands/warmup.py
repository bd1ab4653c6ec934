"""`flashsloth warmup`: compiles what answering on an accelerator needs, so that the first answer need not."""

from __future__ import annotations

from typing import Annotated

import typer

from flashsloth.commands import arguments

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
    columns: Annotated[
        int | None,
        typer.Option(
            "--columns", metavar="N", help="The longest prompt with its answer, in tokens; without it, a usual one."
        ),
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Compile ahead for an accelerator, and say what it took.

    Torch keeps what it compiled on disk; the same model on the same machine then starts in a fraction of the time.
    """
    from flashsloth.commands import terminal
    from flashsloth.commands.ask import describe

    sloth = terminal.load_quietly(model, device, dtype, quantize)
    took = sloth.warm_up(batch, columns)
    if as_json:
        terminal.print_json(
            {
                "model": sloth.name,
                "device": str(sloth.device),
                "dtype": str(sloth.dtype).removeprefix("torch."),
                "seconds": round(took.seconds, 3),
                "compile_seconds": round(took.compile_seconds, 3),
                "recorded": took.recorded,
                "kept_in": took.kept_in,
            }
        )
        return
    lines = [f"{describe(sloth)}: ready after {took.seconds:.1f} s"]
    if took.kept_in is None:
        lines.append("nothing had to be compiled here")
    else:
        lines.append(f"compiling took {took.compile_seconds:.1f} s of them, and is kept in {took.kept_in}")
    if took.recorded:
        lines.append(f"{took.recorded} passes are recorded, for as long as a process lives")
    for line in lines:
        terminal.stdout().print(line, markup=False, soft_wrap=True)


__all__ = ["EXAMPLES", "warmup"]
