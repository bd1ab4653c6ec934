"""`flashsloth verify-batch`: is an answer the same alone and among others, on this machine?"""

from __future__ import annotations

from typing import Annotated

import typer

from flashsloth.cli import arguments, terminal

EXAMPLES = (
    "flashsloth verify-batch",
    "flashsloth verify-batch runs/mine/final --quantize int8 --requests 200",
)
REQUESTS = 1000
BROKEN = 1


def verify_batch(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A folder or a name on the hub.")] = None,
    *,
    requests: Annotated[int, typer.Option("--requests", metavar="N", help="How many are answered.")] = REQUESTS,
    seed: arguments.Seed = 0,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
    as_json: arguments.Json = False,
) -> None:
    """Answer random requests together and alone, and compare.

    Exits with 1 where a token differs by more than rounding, where a request that went wrong reached another, and where
    too few ran side by side to prove anything.
    """
    from flashsloth.inference.engine.batch_verification import LEAST_ROWS, SHOWN, verify_batch

    sloth = terminal.load_quietly(model, device, dtype, quantize)
    report = verify_batch(sloth, requests, seed)
    if as_json:
        terminal.print_json({"holds": report.holds, **vars(report)})
    else:
        lines = [
            f"{terminal.describe(sloth)}: {report.requests:,} requests, {report.tokens:,} tokens in {report.steps:,} "
            f"steps of {report.mean_rows:.1f} rows on average",
            f"{report.near} answers differed where rounding ({report.rounding:.2g}) lets them; {len(report.broken)} "
            f"differed otherwise",
            *report.broken[:SHOWN],
        ]
        if not (report.broken or report.holds):
            lines.append(f"that proves nothing: expected {LEAST_ROWS} rows on average; ask for more requests")
        for line in lines:
            terminal.print_line(line)
    if not report.holds:
        raise typer.Exit(BROKEN)
