"""`flashsloth world`: draws pictures with questions to disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal

if TYPE_CHECKING:
    from flashsloth.world import World

EXAMPLES = (
    "flashsloth world data/shapes --count 1000",
    "flashsloth world data/easy --count 500 --level 0 --captions",
    "flashsloth world runs/world/level3 --format pack --count 200000 --workers 16",
)
PACK = "pack"
NANO_SIDE, NANO_GRID = 120, 12
"""Of the small model's encoder: px, and patches along a side."""


def world(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many pictures.")] = 1000,
    split: Annotated[str, typer.Option("--split", help="train or test.")] = "train",
    level: arguments.Level = 3,
    seed: arguments.Seed = 0,
    start: Annotated[int, typer.Option("--start", help="The number of the first picture.")] = 0,
    image_format: Annotated[str, typer.Option("--format", help="png, jpg, or pack: for training.")] = "png",
    captions: Annotated[bool, typer.Option("--captions", help="Descriptions instead of questions.")] = False,
    unknown: arguments.Unknown = 0.0,
    side: Annotated[int, typer.Option("--side", help="Of a pack's square pictures, in px.")] = NANO_SIDE,
    grid: Annotated[int, typer.Option("--grid", help="Patches along a side, whose contents a pack lists.")] = NANO_GRID,
    workers: Annotated[int, typer.Option("--workers", help="Processes that draw a pack.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace the set that OUT holds, pictures and all.")] = False,
) -> None:
    """Draw pictures with questions, to train on.

    Shapes, colours, words, numbers and bar charts: OUT/images and OUT/conversations.json, in LLaVA's layout. As a pack,
    pictures of the model's size in few files, which a recipe reads with `packed: OUT`.
    """
    from flashsloth.world import World, export_split

    if image_format == PACK:
        from flashsloth.world.pack import PackPlan, draw_pack

        plan = PackPlan(seed, split, level, unknown, start, count, side, grid)
        with terminal.progress("drawing", count) as advance:
            path = draw_pack(plan, folder, workers=workers, progress=advance)
        terminal.print_line(path)
        return
    plain = World(seed=seed, split=split, level=level, unknown=unknown)
    with terminal.progress("drawing", count) as advance:
        path = export_split(
            _counting(plain, advance),
            folder,
            count,
            start=start,
            image_format=image_format,
            captions=captions,
            replace=force,
        )
    terminal.print_line(path)


def _counting(world: World, advance: Callable[[int], None]) -> World:
    """The same world, telling of every sample that is taken from it."""
    from flashsloth.world import World, WorldSample

    class CountingWorld(World):
        def sample(self, index: int) -> WorldSample:
            advance(1)
            return super().sample(index)

    return CountingWorld(world.seed, world.split, world.level, world.unknown)
