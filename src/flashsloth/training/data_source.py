"""One source of samples, as a recipe names it: an item under `data:`. What the files hold is read in `data/`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from flashsloth.strict_model import Problem, found
from flashsloth.training.recipe_fields import FROM_HERE, Count, RecipeModel, Seed, Share, fixed

SOURCE_KEYS = ("json", "jsonl", "csv", "parquet", "shards", "world", "packed")
DATA_KEYS = (
    "json, jsonl, csv, parquet, shards (files of conversations), world (a level 0..3) and packed (a pack of the world)"
)
GOES_WITH = {
    "images": ("json", "jsonl", "csv", "parquet"),
    "count": ("world", "packed"),
    "seed": ("world",),
    "split": ("world",),
    "unknown": ("world",),
    "text": ("world", "packed"),
    "most_turns": ("world", "packed"),
}
"""Keys that say something of some sources alone."""
MOST_PASSES = 1_000_000
"""Over a source, in an epoch: an epoch's order is kept in memory."""
_ORDER = fixed("steps would learn from other samples")
_Name = Annotated[str, Field(min_length=1)]


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "json"')  # it hides BaseModel.json, which is no longer for use

    class DataSource(RecipeModel):
        """One source of samples: exactly one of :data:`SOURCE_KEYS`, and how."""

        json: Annotated[_Name | None, _ORDER] = None  # type: ignore[assignment]
        """A JSON file: LLaVA's list, COCO's captions, VQAv2's questions."""
        jsonl: Annotated[_Name | None, _ORDER] = None
        """Samples, one a line."""
        csv: Annotated[_Name | None, _ORDER] = None
        """A table with a header, such as image, question, answer."""
        parquet: Annotated[_Name | None, _ORDER] = None
        """A file, a folder, or a pattern such as `part-*.parquet`; pictures in it or in `images`."""
        shards: Annotated[_Name | None, _ORDER] = None
        """WebDataset's tar files: a file, a folder, or a pattern such as `cc-{00000..00055}.tar`."""
        images: Annotated[_Name | None, _ORDER] = None
        """The folder its picture paths start from; without it, the folder of the file."""
        weight: Annotated[float, Field(gt=0, le=MOST_PASSES), _ORDER] = 1.0
        """How often an epoch takes each sample: 2 for twice, 0.5 for every other one, the others next time."""
        world: Annotated[int | None, Field(ge=0, le=3), _ORDER] = None
        """Level of the drawn world."""
        packed: Annotated[_Name | None, _ORDER] = None
        """The folder of a pack that `flashsloth world --format pack` drew."""
        count: Annotated[Count | None, _ORDER] = None
        """Samples to draw from the world; of a pack the first so many, all without it."""
        seed: Annotated[Seed, _ORDER] = 0
        """The world's."""
        split: Annotated[Literal["train", "test"], _ORDER] = "train"
        """Of the world: `train` or `test`."""
        unknown: Annotated[Share, _ORDER] = 0.0
        """Share of the world's pictures that hold nothing with a name, and of the questions about the others that
        suppose what is not there."""
        text: Annotated[Literal["questions", "caption"], _ORDER] = "questions"
        """What the world, drawn or packed, is asked for."""
        most_turns: Annotated[Count | None, _ORDER] = None
        """Questions a picture at most; null for all that the world asks."""
        leave_out: Annotated[list[Annotated[int, Field(ge=0)]], FROM_HERE] = Field(default_factory=list)
        """Numbers of samples, from 0, that are not learned from; the next one stands in for each, so that no other
        moves. Guards name samples by these numbers."""
        resolution: Annotated[Literal["standard", "hd"] | None, _ORDER] = None
        """Of an HD model, how much it is shown of each picture: the whole view, or all views; null for all. Two sources
        of the same files, one of each, teach it both."""
        independent: Annotated[bool, _ORDER] = False
        """Every question by itself instead of as turns of one conversation."""

        @property
        def kind(self) -> str | None:
            """Which of :data:`SOURCE_KEYS` it is; None while a recipe is checked that says none."""
            return next((key for key in SOURCE_KEYS if getattr(self, key) is not None), None)

        @property
        def is_drawn(self) -> bool:
            """Whether it is the drawn world, of whose pictures everything is known."""
            return self.kind in ("world", "packed")

        def problems(self) -> Iterator[Problem]:
            named = [key for key in SOURCE_KEYS if getattr(self, key) is not None]
            if len(named) != 1:
                yield Problem((), f"found {' and '.join(named) or 'no data'}, expected exactly one of {DATA_KEYS}")
                return
            source = named[0]
            for key, sources in GOES_WITH.items():
                value = getattr(self, key)
                if source not in sources and value != type(self).model_fields[key].default:
                    yield Problem(
                        (key,), f"found {found(value)}, but it does not go with {source}: leave it out", ((source,),)
                    )
            if source == "world" and self.count is None:
                yield Problem(("count",), "missing, expected how many pictures to draw", (("world",),))


__all__ = ["DATA_KEYS", "DataSource"]
