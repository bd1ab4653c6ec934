"""`flashsloth merge`: merges an adapter into its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal

if TYPE_CHECKING:
    from flashsloth.checkpoint.merge_adapter import Difference

EXAMPLES = (
    "flashsloth merge runs/mine/0-instruction my-sloth",
    "flashsloth merge runs/mine/0-instruction my-sloth --base downloads/FlashSloth-3.2B --force",
)


def merge(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="An adapter's folder, or its name on the hub.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet, or is empty.")],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="BASE", help="Where the base is, if not where the adapter says."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the checkpoint that OUT holds.")] = False,
    as_json: arguments.Json = False,
) -> None:
    """Merge an adapter into its base, and check the result.

    Writes an ordinary checkpoint in the base's precision, once it gives the logits that base and adapter give together.
    """
    with terminal.waiting(f"merging {adapter}"):
        from flashsloth.checkpoint.merge_adapter import MERGING_TOLERANCE
        from flashsloth.checkpoint.merge_adapter import merge as run

        done = run(adapter, out, base, replace=force)
    if as_json:
        terminal.print_json(done.to_dict())
        return
    for line in (
        f"base: {done.base}",
        f"the adapter changes logits by up to {_shown(done.effect)}",
        f"merged, they differ by up to {_shown(done.merging)}; allowed are {MERGING_TOLERANCE:.0e} of it",
        f"as written, in {done.dtype}, by up to {_shown(done.rounding)}; allowed are {done.tolerance:.0e} of it",
        f"as written, the likeliest token is the same at {done.rounding.same_choice:.1%} of the positions",
    ):
        terminal.stderr().print(line, soft_wrap=True)
    terminal.print_line(done.folder)


def _shown(difference: Difference) -> str:
    return f"{difference.largest:.2g} ({difference.relative:.1e} of the largest, {difference.scale:.3g})"
