"""A pack of the drawn world as training data: the same samples as drawing them on the spot, without the drawing."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from flashsloth.training.data.sample import DataError, Sample, Sizes, Where
from flashsloth.training.data.world_data import sample_of
from flashsloth.training.data_source import DataSource
from flashsloth.world.pack import PROPERTIES, Pack, PackedSample, PackError


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


__all__ = ["PackedWorldData", "PackedWorldPatches"]
