"""`flashsloth world`: draws pictures with questions to disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.commands import arguments

if TYPE_CHECKING:
    from flashsloth.world import World

EXAMPLES = (
    "flashsloth world data/shapes --count 1000",
    "flashsloth world data/easy --count 500 --level 0 --captions",
)


def world(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many pictures.")] = 1000,
    split: Annotated[str, typer.Option("--split", help="train or test.")] = "train",
    level: arguments.Level = 3,
    seed: arguments.Seed = 0,
    start: Annotated[int, typer.Option("--start", help="The number of the first picture.")] = 0,
    image_format: Annotated[str, typer.Option("--format", help="png or jpg.")] = "png",
    captions: Annotated[bool, typer.Option("--captions", help="Descriptions instead of questions.")] = False,
) -> None:
    """Draw pictures with questions, to train on.

    Shapes, colours, words, numbers and bar charts: OUT/images and OUT/conversations.json, in LLaVA's layout.
    """
    from flashsloth.commands import terminal
    from flashsloth.world import World, export_split

    plain = World(seed=seed, split=split, level=level)
    with terminal.progress("drawing", count) as advance:
        path = export_split(
            _counting(plain, advance), folder, count, start=start, image_format=image_format, captions=captions
        )
    terminal.stdout().print(str(path), soft_wrap=True)


def _counting(world: World, advance: Callable[[int], None]) -> World:
    """The same world, telling of every sample that is taken from it."""
    from flashsloth.world import World, WorldSample

    class CountingWorld(World):
        def sample(self, index: int) -> WorldSample:
            advance(1)
            return super().sample(index)

    return CountingWorld(seed=world.seed, split=world.split, level=world.level)
