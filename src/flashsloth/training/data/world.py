"""The drawn world as training data: its questions or captions, and what each patch of a picture shows.

A pack of the drawn world as training data: the same samples as drawing them on the spot, without the drawing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from flashsloth.training.data.sample import DataError, Sample, Sizes, Where
from flashsloth.training.recipe_groups import DataSource
from flashsloth.world.pack import PROPERTIES, Pack, PackedSample, PackError

if TYPE_CHECKING:
    from flashsloth.world import WorldSample
    from flashsloth.world.pack import PackedSample


class WorldData(Dataset):
    """Pictures drawn on the spot, with their questions as turns of one conversation, or with their caption.

    With a `patch_grid`, samples also say what each of its patches shows.
    """

    blocks: np.ndarray | None = None

    def __init__(self, source: DataSource, patch_grid: int | None = None) -> None:
        from flashsloth.world import World, WorldError

        assert source.world is not None
        assert source.count is not None
        self.source, self.patch_grid = source, patch_grid
        try:
            self.world = World(source.seed, source.split, source.world, source.unknown)
        except WorldError as error:
            raise DataError(f"data from the world: {error}") from error
        self.name = f"world {source.world} ({source.split}, seed {source.seed})"

    def __len__(self) -> int:
        return self.source.count or 0

    def sizes(self) -> Sizes:
        """All alike: what a picture will show is only known when it is drawn."""
        return Sizes(np.zeros(len(self), dtype=np.int64), np.ones(len(self), dtype=np.int64))

    def __getitem__(self, index: int) -> Sample:
        drawn = self.world.sample(index)
        where = Where(self.name, index, str(index))
        picture = {"type": "image", "image": drawn.image}
        patches = None if self.patch_grid is None else patch_classes(drawn, self.patch_grid)
        return sample_of(self.source, drawn, picture, patches, where)


class WorldPatches(Dataset):
    """Drawn pictures with what each patch shows: `{"image", "shape", "color", "character", "center"}`."""

    blocks: np.ndarray | None = None

    def __init__(self, source: DataSource, patch_grid: int) -> None:
        if source.world is None:
            raise DataError("the encoder stage learns from the drawn world: its data needs world:, not files")
        self.drawn, self.patch_grid = WorldData(source), patch_grid
        self.name = self.drawn.name

    def __len__(self) -> int:
        return len(self.drawn)

    def sizes(self) -> Sizes:
        """As :meth:`WorldData.sizes`."""
        return self.drawn.sizes()

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.drawn.world.sample(index)
        return {"image": sample.image, **patch_classes(sample, self.patch_grid)}


def sample_of(
    source: DataSource,
    drawn: WorldSample | PackedSample,
    picture: dict[str, Any],
    patches: dict[str, np.ndarray] | None,
    where: Where,
) -> Sample:
    """What a source makes of a picture: its caption, or its questions."""
    if source.text == "caption":
        answer = {"role": "assistant", "content": drawn.caption}
        return Sample([{"role": "user", "content": [picture]}, answer], ["caption"], patches=patches, where=where)
    messages: list[dict[str, Any]] = []
    questions = drawn.questions[: source.most_turns]
    for question in questions:
        text = {"type": "text", "text": question.question}
        messages.append({"role": "user", "content": [text] if messages else [picture, text]})
        messages.append({"role": "assistant", "content": question.answer})
    kinds = [question.kind for question in questions]
    return Sample(messages, kinds, source.independent, patches, where)


def patch_classes(sample: WorldSample, grid: int) -> dict[str, np.ndarray]:
    """For each property int64 [grid * grid], what the patches of a drawn picture show."""
    labels = sample.patch_labels(grid)
    return {"shape": labels.shape, "color": labels.color, "character": labels.character, "center": labels.center}


class PackedWorldData(Dataset):
    """The pictures of a pack with their questions as turns of one conversation, or with their caption.

    With a `patch_grid`, samples also say what each of its patches shows.

    Raises:
        DataError: if there is no such pack, it is smaller than the source's `count`, or has other patches.
    """

    blocks: np.ndarray | None = None

    def __init__(self, source: DataSource, patch_grid: int | None = None) -> None:
        assert source.packed is not None
        try:
            self.pack = Pack(source.packed)
        except PackError as error:
            raise DataError(str(error)) from error
        self.source, self.patch_grid = source, patch_grid
        self.name = f"pack {source.packed}"
        self.count = len(self.pack) if source.count is None else source.count
        if self.count > len(self.pack):
            raise DataError(f"{self.name} has {len(self.pack):,} pictures, fewer than count: {self.count:,}")
        if patch_grid not in (None, self.pack.plan.grid):
            grid = self.pack.plan.grid
            raise DataError(
                f"{self.name} knows {grid}x{grid} patches, the model has {patch_grid}x{patch_grid}: draw it with "
                f"--grid {patch_grid}"
            )

    def __len__(self) -> int:
        return self.count

    def sizes(self) -> Sizes:
        """All alike, as of the world."""
        return Sizes(np.zeros(len(self), dtype=np.int64), np.ones(len(self), dtype=np.int64))

    def packed(self, index: int) -> PackedSample:
        """What the pack holds of this number."""
        try:
            return self.pack[index]
        except PackError as error:
            raise DataError(str(error)) from error

    def __getitem__(self, index: int) -> Sample:
        held = self.packed(index)
        where = Where(self.name, index, str(index))
        picture = {"type": "image", "image": Image.fromarray(held.picture)}
        patches = None if self.patch_grid is None else classes_of(held)
        return sample_of(self.source, held, picture, patches, where)


class PackedWorldPatches(PackedWorldData):
    """The pictures of a pack with what each patch shows: `{"image", "shape", "color", "character", "center"}`."""

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        held = self.packed(index)
        return {"image": Image.fromarray(held.picture), **classes_of(held)}


def classes_of(held: PackedSample) -> dict[str, np.ndarray]:
    """For each property int64 [grid * grid], what the patches of a picture show."""
    return {name: getattr(held.patches, name) for name in PROPERTIES}
