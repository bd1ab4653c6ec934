"""One source of samples, as a recipe names it.

In: the keys of an item under `data:`. Out: a :class:`DataSource`, which says itself what is wrong with it. What the
files hold is read in `data/`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SOURCE_KEYS = ("json", "jsonl", "csv", "parquet", "shards", "world", "packed")
DATA_KEYS = (
    "json, jsonl, csv, parquet, shards (files of conversations), world (a level 0..3) and packed (a pack of the world)"
)
TEXTS = ("questions", "caption")


@dataclass
class DataSource:
    """One source of samples: `json`, `jsonl`, `csv`, `parquet` or `shards` (see `data/`), or `world`.

    Attributes:
        json: a JSON file: LLaVA's list, COCO's captions, VQAv2's questions.
        jsonl: samples one a line.
        csv: a table with a header, such as image, question, answer.
        parquet: a file, a folder, or a pattern such as `part-*.parquet`; pictures in it or in `images`.
        shards: WebDataset's tar files: a file, a folder, or a pattern such as `cc-{00000..00055}.tar`.
        images: the folder its picture paths start from; without it, the folder of the file.
        weight: how often an epoch takes each sample: 2 for twice, 0.5 for every other one, the others next time.
        world: level of the drawn world, 0..3.
        packed: the folder of a pack that `flashsloth world --format pack` drew.
        count: samples to draw from the world; of a pack the first so many, all without it.
        seed: the world's.
        split: `train` or `test`.
        unknown: share of the world's pictures that hold nothing with a name, and of the questions about the others that
            suppose what is not there.
        text: `questions` or `caption`, what the world, drawn or packed, is asked for.
        most_turns: questions a picture at most; None for all that the world asks.
        independent: every question by itself instead of as turns of one conversation (see `packing.py`).
    """

    json: str | None = None
    jsonl: str | None = None
    csv: str | None = None
    parquet: str | None = None
    shards: str | None = None
    images: str | None = None
    weight: float = 1.0
    world: int | None = None
    packed: str | None = None
    count: int | None = None
    seed: int = 0
    split: str = "train"
    unknown: float = 0.0
    text: str = "questions"
    most_turns: int | None = None
    independent: bool = False

    def problem(self) -> str | None:
        """What is wrong with it, to be read behind its place in the recipe; None for nothing."""
        named = [key for key in SOURCE_KEYS if getattr(self, key) is not None]
        if len(named) != 1:
            return f" names {' and '.join(named) or 'no data'}, but needs exactly one of {DATA_KEYS}"
        if self.images is not None and named[0] in ("shards", "world", "packed"):
            return f".images does not go with {named[0]}, which brings its pictures: leave it out"
        if not 0 < self.weight < math.inf:
            return f".weight is {self.weight:g}, expected more than 0: how often an epoch takes each sample"
        if self.world is not None and self.count is None:
            return ".count is missing: say how many pictures to draw"
        if self.unknown and self.world is None:
            return f".unknown does not go with {named[0]}: it says how a world is drawn, so leave it out"
        if self.text not in TEXTS:
            return f".text is {self.text!r}, expected one of {TEXTS}"
        return None


__all__ = ["DATA_KEYS", "DataSource"]
