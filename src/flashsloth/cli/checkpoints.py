"""`flashsloth info`, `new` and `convert`: inspect checkpoints, create one of two backbones, change layouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flashsloth.cli import arguments, terminal

if TYPE_CHECKING:
    from rich.table import Table

    from flashsloth.checkpoint.inspect import AdapterInfo, CheckpointInfo

INFO_EXAMPLES = (
    "flashsloth info runs/nano/final",
    "flashsloth info Tongbo/FlashSloth-3.2B --json",
)
NEW_EXAMPLES = (
    "flashsloth new my-sloth --vision google/siglip-so400m-patch14-384 --llm microsoft/phi-2",
    "flashsloth new my-hd-sloth --vision encoders/siglip --llm models/qwen --hd --pool-size 3",
)
CONVERT_EXAMPLES = (
    "flashsloth convert Tongbo/FlashSloth-3.2B flashsloth-3.2b",
    "flashsloth convert my-sloth my-sloth-published --to published",
)


def info(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A folder or a name on the hub.")],
    settings: arguments.Settings = None,
    as_json: arguments.Json = False,
) -> None:
    """Say what a checkpoint or an adapter is, and what is odd about it.

    Layout, stage, parameters, types, sizes; what is missing, and what is not finite, for which it ends with 1.
    """
    with terminal.waiting(f"reading {checkpoint}"):
        from flashsloth.checkpoint.adapter import is_adapter
        from flashsloth.checkpoint.inspect import inspect_adapter, inspect_checkpoint
        from flashsloth.model.loading.folders import find_folder

        options = arguments.settings_of(settings)
        folder = find_folder(checkpoint)
        adapter = is_adapter(folder)
        found = inspect_adapter(folder) if adapter else inspect_checkpoint(folder, **options)
    if as_json:
        terminal.print_json(found.to_dict())
        raise typer.Exit(1 if found.faults else 0)
    terminal.stdout().print(f"[bold]{found.path}[/bold]", soft_wrap=True)
    for line in _headlines(found):
        terminal.stdout().print(line, soft_wrap=True)
    terminal.stdout().print(_info_table(found))
    for remark in found.remarks:
        terminal.stdout().print(f"[yellow]![/yellow] {remark}", soft_wrap=True)
    if found.faults:
        raise typer.Exit(1)


def new(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet, or is empty.")],
    vision: Annotated[str, typer.Option("--vision", metavar="NAME", help="The encoder: SigLIP, SigLIP2, CLIP.")],
    llm: Annotated[str, typer.Option("--llm", metavar="NAME", help="The language model, with its tokenizer.")],
    hd: Annotated[bool, typer.Option("--hd", help="See pictures in five views instead of one.")] = False,
    num_query_tokens: Annotated[int | None, typer.Option("--query-tokens", help="Query tokens a turn (9).")] = None,
    query_size: Annotated[int | None, typer.Option("--query-size", help="Width of EmbQ (half the encoder's).")] = None,
    embq_layer: Annotated[
        int | None, typer.Option("--embq-layer", help="The layer before which EmbQ stands (7/32 of the depth).")
    ] = None,
    embq_num_heads: Annotated[int | None, typer.Option("--embq-heads", help="Heads of EmbQ.")] = None,
    pool_size: Annotated[int | None, typer.Option("--pool-size", help="Side of SAP's windows, in patches (3).")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto (the language model's), float32, bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Of the new parts' random weights.")] = 0,
) -> None:
    """Join an encoder and a language model, to be trained.

    Both keep their weights; what lies between them is new, and learns in stage 1 and 2.
    """
    sizes = {
        "num_query_tokens": num_query_tokens,
        "query_size": query_size,
        "embq_layer": embq_layer,
        "embq_num_heads": embq_num_heads,
        "pool_size": pool_size,
    }
    given = {name: size for name, size in sizes.items() if size is not None}
    arguments.check_seed(seed)
    with terminal.waiting(f"creating a model of {vision} and {llm}"):
        from flashsloth.checkpoint.create import create

        folder = create(vision, llm, out, dtype=dtype, seed=seed, hd=hd, **given)
    terminal.print_line(folder)


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder or a name on the hub.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A folder that does not exist yet, or is empty.")],
    to: Annotated[str, typer.Option("--to", help="flashsloth, or published (the authors' layout).")] = "flashsloth",
    settings: arguments.Settings = None,
) -> None:
    """Write a checkpoint in the other layout, bit for bit.

    The published layout's .bin files become safetensors on the way.
    """
    with terminal.waiting(f"converting {source}"):
        from flashsloth.checkpoint.convert import convert as run

        folder = run(source, target, to=to, **arguments.settings_of(settings))
    terminal.print_line(folder)


def _headlines(found: CheckpointInfo | AdapterInfo) -> list[str]:
    """What it is, in a line or two."""
    from flashsloth.checkpoint.inspect import AdapterInfo

    if not isinstance(found, AdapterInfo):
        return [f"{found.layout} layout, {found.variant}, trained to stage {found.stage}"]
    held = "" if found.quantize in (None, "none") else f", learned over {found.quantize}"
    return [
        f"LoRA adapter of rank {found.rank}, alpha {found.alpha:g}, dropout {found.dropout:g}{held}",
        f"base: {found.base or 'not written down'} ({found.base_digest or 'no digest'})",
    ]


def _info_table(found: CheckpointInfo | AdapterInfo) -> Table:
    """Everything with a name and a value, in groups."""
    from rich.table import Table

    from flashsloth.checkpoint.inspect import AdapterInfo
    from flashsloth.planning.machine import readable

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    table.add_column(style="cyan")
    table.add_column(justify="right")
    groups: dict[str, dict[str, Any]] = {
        "parameters": {**found.parameters, "in all": found.total_parameters},
        "types": dict(found.dtypes),
        "files": {name: readable(size, "B") for name, size in found.files.items()},
    }
    if isinstance(found, AdapterInfo):
        groups["layers with an adapter"] = dict(found.targets)
    else:
        groups |= {"vocabulary": dict(found.vocabulary), "sizes": found.sizes}
    for title, rows in groups.items():
        table.add_row()
        table.add_row(f"[bold]{title}[/bold]")
        for name, value in rows.items():
            is_count = isinstance(value, int) and not isinstance(value, bool)
            table.add_row(f"  {name}", f"{value:,}" if is_count else "-" if value is None else str(value))
    return table
