"""WebDataset shards: tar files of `key.json` beside `key.jpg` (or `key.0.jpg`, `key.1.png` for several pictures).

A shard is gone through once, header by header, to learn where its members stand: of each sample its JSON's place and
its pictures' places are kept, nothing else. Samples are then read where they stand, so the order of training (see
`order.py`), which stays within a few shards at a time, can begin anywhere: a run that is resumed reads nothing twice.
"""

from __future__ import annotations

import json
import tarfile
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.training.data.llava_record import identity, pictures_named
from flashsloth.training.data.picture_files import ENDINGS
from flashsloth.training.data.record_data import PrivateFiles, RecordData, text_size
from flashsloth.training.data.sample import BadSampleError, DataError, Sizes, Where
from flashsloth.training.data.several_files import several_files

RECORD_ENDING = ".json"


class _Index:
    """Where the members of all samples stand: a row (start, size) of each JSON, and of each picture, flat."""

    def __init__(self) -> None:
        self.records, self.pictures = array("q"), array("q")
        self.picture_ends = array("q")
        self._key: tuple[str, ...] = ()
        self._record = (0, -1)

    def add(self, key: tuple[str, ...], ending: str, start: int, size: int) -> None:
        if key != self._key:
            self.close()
            self._key = key
        if ending == RECORD_ENDING:
            self._record = (start, size)
        elif ending in ENDINGS:
            self.pictures.extend((start, size))

    def close(self) -> None:
        """End the sample that is being read, if there is one."""
        if self._key:
            self.records.extend(self._record)
            self.picture_ends.append(len(self.pictures) // 2)
        self._key, self._record = (), (0, -1)


class ShardData(RecordData):
    """Samples of tar shards."""

    blocks: np.ndarray

    def __init__(self, shards: str, independent: bool = False) -> None:
        paths = several_files(shards, ".tar")
        super().__init__(shards, paths[0].parent, independent)
        self.files = PrivateFiles(paths)
        index, counts = _Index(), []
        for path in paths:
            before = len(index.picture_ends)
            _read_headers(path, index)
            counts.append(len(index.picture_ends) - before)
        self.records = _pairs(index.records)
        self.picture_places = _pairs(index.pictures)
        self.picture_ends = np.frombuffer(index.picture_ends, dtype=np.int64) if counts else np.zeros(0, np.int64)
        self.blocks = np.array(counts, dtype=np.int64)
        self.ends = self.blocks.cumsum()
        if not len(self):
            raise DataError(f"{shards} holds no samples, expected members key{RECORD_ENDING} and key.jpg")

    def __len__(self) -> int:
        return len(self.records)

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self.ends, index, side="right"))

    def record(self, index: int) -> Any:
        start, size = (int(value) for value in self.records[index])
        if size < 0:
            raise BadSampleError(f"has no {RECORD_ENDING} beside its pictures", "no_conversation")
        try:
            return json.loads(self.files.read(self._shard(index), start, size))
        except (ValueError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise BadSampleError(f"cannot be read as JSON: {error}", "unreadable_record") from error

    def where(self, index: int, record: Any) -> Where:
        """A sample's place, with its shard; without an id of its own, its number in the shard."""
        shard = self._shard(index)
        number = index - int(self.ends[shard] - self.blocks[shard])
        path = self.files.paths[shard]
        found = identity(record)
        return Where(str(path), number, f"{path.stem}/{number}" if found is None else found)

    def pictures(self, index: int, record: dict[str, Any]) -> list[Any]:
        first = int(self.picture_ends[index - 1]) if index else 0
        places = self.picture_places[first : int(self.picture_ends[index])]
        named = len(pictures_named(record))
        if named and named != len(places):
            raise BadSampleError(f"names {named} pictures, but {len(places)} lie beside it", "missing_picture")
        shard = self._shard(index)
        return [self.files.read(shard, int(start), int(size)) for start, size in places]

    def sizes(self) -> Sizes:
        texts = np.zeros(len(self), dtype=np.int64)
        for index in range(len(self)):
            try:
                texts[index] = text_size(self.record(index))[0]
            except BadSampleError:
                continue  # it is met again, and named, when it is read to be learned from
        return Sizes(texts, np.diff(self.picture_ends, prepend=0))


def _pairs(flat: array) -> np.ndarray:
    return np.frombuffer(flat, dtype=np.int64).reshape(-1, 2) if len(flat) else np.zeros((0, 2), dtype=np.int64)


def _read_headers(path: Path, index: _Index) -> None:
    """Add a shard's samples."""
    expected = "expected a whole one, not compressed"
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                shard.members = []  # type: ignore[attr-defined] # tarfile would keep every one
                if member.isreg():
                    folder, _, name = member.name.rpartition("/")
                    stem, _, rest = name.partition(".")
                    ending = "." + rest.rpartition(".")[2].lower()
                    index.add((str(path), folder, stem), ending, member.offset_data, member.size)
            end = shard.offset
    except tarfile.TarError as error:
        raise DataError(f"{path} cannot be read as a tar: {error}; {expected}") from error
    index.close()
    with open(path, "rb") as file:  # tarfile takes a header that is cut off or damaged for the end
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if block and block != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{path} cannot be read as a tar: no member begins at byte {end}; {expected}")


__all__ = ["ShardData"]
