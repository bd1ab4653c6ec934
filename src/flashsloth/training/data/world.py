"""The drawn world as training data, drawn on the spot or before: its questions or captions, and what each patch shows.

In: a source of a recipe, `world` or `packed`. Out: a dataset of samples, the same from a pack as from drawing them; or
of pictures with what each of their patches shows, for the encoder.

Legend: P patches of a picture, row by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from flashsloth.training.data.sample import DataError, Sample, Sizes, Where
from flashsloth.training.recipe_fields import DataSource
from flashsloth.world.pack import PROPERTIES, Pack, PackError


class DrawnData(Dataset):
    """Drawn pictures with their questions as turns of one conversation, or with their caption.

    With a `patch_grid`, samples also say what each of its patches shows.
    """

    blocks: np.ndarray | None = None
    name: str
    count: int

    def __init__(self, source: DataSource, patch_grid: int | None = None) -> None:
        self.source, self.patch_grid = source, patch_grid

    def drawn(self, index: int) -> tuple[Any, Image.Image, dict[str, np.ndarray] | None]:
        """What was drawn, with its questions and caption; the picture; for each property int64 [P] of its patches."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count

    def sizes(self) -> Sizes:
        """All alike: what a picture will show is only known when it is drawn."""
        return Sizes(np.zeros(len(self), dtype=np.int64), np.ones(len(self), dtype=np.int64))

    def __getitem__(self, index: int) -> Sample:
        drawn, image, patches = self.drawn(index)
        where, picture = Where(self.name, index, str(index)), {"type": "image", "image": image}
        if self.source.text == "caption":
            answer = {"role": "assistant", "content": drawn.caption}
            return Sample([{"role": "user", "content": [picture]}, answer], ["caption"], patches=patches, where=where)
        messages: list[dict[str, Any]] = []
        questions = drawn.questions[: self.source.most_turns]
        for question in questions:
            text = {"type": "text", "text": question.question}
            messages.append({"role": "user", "content": [text] if messages else [picture, text]})
            messages.append({"role": "assistant", "content": question.answer})
        return Sample(messages, [question.kind for question in questions], self.source.independent, patches, where)


class WorldData(DrawnData):
    """Pictures drawn on the spot."""

    def __init__(self, source: DataSource, patch_grid: int | None = None) -> None:
        from flashsloth.world import World, WorldError

        super().__init__(source, patch_grid)
        assert source.world is not None
        assert source.count is not None
        try:
            self.world = World(source.seed, source.split, source.world, source.unknown)
        except WorldError as error:
            raise DataError(f"data from the world: {error}") from error
        self.name, self.count = f"world {source.world} ({source.split}, seed {source.seed})", source.count

    def drawn(self, index: int) -> tuple[Any, Image.Image, dict[str, np.ndarray] | None]:
        sample = self.world.sample(index)
        if self.patch_grid is None:
            return sample, sample.image, None
        labels = sample.patch_labels(self.patch_grid)
        return sample, sample.image, {name: getattr(labels, name) for name in PROPERTIES}


class PackedWorldData(DrawnData):
    """The pictures of a pack.

    Raises:
        DataError: if there is no such pack, it is smaller than the source's `count`, or has other patches.
    """

    def __init__(self, source: DataSource, patch_grid: int | None = None) -> None:
        super().__init__(source, patch_grid)
        assert source.packed is not None
        try:
            self.pack = Pack(source.packed)
        except PackError as error:
            raise DataError(str(error)) from error
        self.name = f"pack {source.packed}"
        self.count = len(self.pack) if source.count is None else source.count
        if self.count > len(self.pack):
            raise DataError(f"{self.name} has {len(self.pack):,} pictures, fewer than count: {self.count:,}")
        grid = self.pack.plan.grid
        if patch_grid not in (None, grid):
            raise DataError(
                f"{self.name} knows {grid}x{grid} patches, the model has {patch_grid}x{patch_grid}: draw it with "
                f"--grid {patch_grid}"
            )

    def drawn(self, index: int) -> tuple[Any, Image.Image, dict[str, np.ndarray] | None]:
        try:
            held = self.pack[index]
        except PackError as error:
            raise DataError(str(error)) from error
        patches = None if self.patch_grid is None else {name: getattr(held.patches, name) for name in PROPERTIES}
        return held, Image.fromarray(held.picture), patches


class DrawnPatches(Dataset):
    """Drawn pictures with what each patch shows: `{"image", "shape", "color", "character", "center"}`."""

    def __init__(self, data: DrawnData) -> None:
        self.data, self.name, self.blocks, self.sizes = data, data.name, data.blocks, data.sizes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        _, image, patches = self.data.drawn(index)
        assert patches is not None
        return {"image": image, **patches}
