"""The data of a stage: its sources one after the other, each with its weight.

In: the sources of a recipe. Out: one map-style dataset, in which every sample has a number. Some samples of each file
are looked at when it is opened, so that what is wrong with all of it is said once and not of each sample.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from flashsloth.media.limits import shown
from flashsloth.training.data.json_data import JsonlData, open_json
from flashsloth.training.data.layouts import check_record
from flashsloth.training.data.records import RecordData
from flashsloth.training.data.sample import BadSampleError, DataError, Sizes
from flashsloth.training.data.shards import ShardData
from flashsloth.training.data.tables import CsvData, ParquetData
from flashsloth.training.data.world import DrawnPatches, PackedWorldData, WorldData
from flashsloth.training.recipe_fields import DataSource

LOOKED_AT = 256
"""Records, at most."""
ENOUGH = 16
"""Records of which none has its pictures: the folder is wrong."""
LEAST = 4
"""Of fewer, nothing is concluded."""


def look(data: RecordData) -> None:
    """Look at some of the records: at the first where samples lie in blocks, else at some from all over the file.

    Raises:
        DataError: if all of them lack the same.
    """
    bad: list[BadSampleError] = []
    lacking: list[BadSampleError] = []
    looked = min(LOOKED_AT, len(data))
    last = looked if data.blocks is not None else len(data)
    for index in np.linspace(0, last - 1, looked).astype(int).tolist():
        try:
            said = data.conversation(index, check_record(data.record(index)))
        except BadSampleError as error:
            bad.append(error)
            continue
        names = [picture for picture in said.pictures if isinstance(picture, str)]
        if not names:
            continue
        try:
            for name in names:
                data.find(name)
            return
        except BadSampleError as error:
            if error.kind != "missing_picture":
                return
            lacking.append(error)
        if len(lacking) >= ENOUGH:
            break
    if len(lacking) >= LEAST:
        raise DataError(
            f"{data.name}: none of {len(lacking)} samples with pictures has them in {shown(str(data.images))}: "
            f"say where they are (images:, or --images); the first: {lacking[0].reason}"
        )
    if len(bad) == looked >= LEAST:
        raise DataError(f"{data.name}: none of {looked} samples can be learned from; the first {bad[0].reason}")


class Joined(Dataset):
    """Several datasets one after the other.

    Attributes:
        parts: the datasets.
        weights: how often an epoch takes each sample of each part.
        resolutions: how much is shown of the pictures of each part.
    """

    def __init__(
        self,
        parts: list[Any],
        weights: list[float] | None = None,
        resolutions: Sequence[str | None] | None = None,
    ) -> None:
        self.parts = parts
        self.weights = [1.0] * len(parts) if weights is None else weights
        self.resolutions = [None] * len(parts) if resolutions is None else list(resolutions)
        self.ends = list(np.cumsum([len(part) for part in parts]))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def start(self, part: int) -> int:
        """The number of a part's first sample."""
        return int(self.ends[part - 1]) if part else 0

    def locate(self, index: int) -> tuple[int, int]:
        """The part of a sample, and its number there."""
        part = bisect.bisect_right(self.ends, index)
        return part, index - self.start(part)

    def __getitem__(self, index: int) -> Any:
        part, local = self.locate(index)
        sample = self.parts[part][local]
        if self.resolutions[part] is not None:
            sample.resolution = self.resolutions[part]
        return sample

    def sizes(self) -> Sizes:
        """Of every sample, without opening pictures."""
        found = [part.sizes() for part in self.parts]
        return Sizes(*(np.concatenate(values) for values in zip(*found, strict=True)))


def open_source(source: DataSource, patch_grid: int | None = None) -> Any:
    """The dataset of one source.

    Raises:
        DataError: if there is no such file, it holds something else, none of its first pictures is there, or patches
            are asked for of it.
    """
    if source.world is not None:
        return WorldData(source, patch_grid)
    if source.packed is not None:
        return PackedWorldData(source, patch_grid)
    if patch_grid is not None:
        raise DataError(f"patch_loss needs drawn pictures (world: or packed:), but the data names {source}")
    data = _open_records(source)
    look(data)
    return data


def _open_records(source: DataSource) -> RecordData:
    """The dataset of a source of files."""
    if source.shards is not None:
        return ShardData(source.shards, source.independent)
    openers: dict[str, Any] = {"json": open_json, "jsonl": JsonlData, "csv": CsvData, "parquet": ParquetData}
    assert source.kind is not None
    data: RecordData = openers[source.kind](getattr(source, source.kind), source.images, source.independent)
    return data


def conversations(sources: list[DataSource], patch_grid: int | None = None) -> Joined:
    """The dataset of a stage that learns answers; with a `patch_grid`, patches too.

    Raises:
        DataError: where a source cannot be opened, or patches are asked for of pictures that were not drawn.
    """
    parts = [open_source(source, patch_grid) for source in sources]
    return Joined(parts, [source.weight for source in sources], [source.resolution for source in sources])


def patches(sources: list[DataSource], patch_grid: int) -> Joined:
    """The dataset of the encoder's stage."""
    if any(not source.is_drawn for source in sources):
        raise DataError("the encoder stage learns from the drawn world: its data needs world: or packed:, not files")
    parts = [DrawnPatches(open_source(source, patch_grid)) for source in sources]
    return Joined(parts, [source.weight for source in sources])
