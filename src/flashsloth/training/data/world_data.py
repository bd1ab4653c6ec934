"""The drawn world as training data: its questions or captions, and what each patch of a picture shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from flashsloth.training.data.sample import DataError, Sample, Sizes, Where
from flashsloth.training.data_source import DataSource

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


__all__ = ["WorldData", "WorldPatches", "sample_of"]
