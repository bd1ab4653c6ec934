"""WebDataset shards: tar files of `key.json` or `key.txt` beside `key.jpg` (or `key.0.jpg`, `key.1.png` for several).

A shard is gone through once, header by header, to learn where its members stand: of each sample the places of its JSON,
its text and its pictures are kept, nothing else. Samples are then read where they stand, so the order of training (see
`sampler.py`), which stays within a few shards at a time, can begin anywhere: a run that is resumed reads nothing twice.
Members of a sample may stand apart in their shard, as in a tar that was made of a folder.

A text is the caption of its picture. Where a JSON lies beside it, that is read if it holds a layout by itself; if it
only tells of the picture (img2dataset's does), the text counts.
"""

from __future__ import annotations

import re
import tarfile
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.files import LFS_POINTER, is_lfs_pointer
from flashsloth.training.data.conversation import ENDINGS, Conversation
from flashsloth.training.data.json_data import parse_record
from flashsloth.training.data.json_spans import table_of
from flashsloth.training.data.layouts import PICTURE_FIELDS, check_record, identity, is_spoken, pictures_named
from flashsloth.training.data.records import PrivateFiles, RecordData, several_files, text_size
from flashsloth.training.data.refused_files import UNSEEN_ENDINGS
from flashsloth.training.data.sample import BadSampleError, DataError, Sizes, Where

RECORD_ENDING, TEXT_ENDING = ".json", ".txt"
NOT_THERE = (0, -1)
UNSEEN = (0, -2)
"""In place of a sample's text: it has a video or sound."""


@dataclass
class _Members:
    """Where the members of one sample stand, as (start, size); pictures with what their names end with."""

    record: tuple[int, int] = NOT_THERE
    text: tuple[int, int] = NOT_THERE
    pictures: list[tuple[str, int, int]] = field(default_factory=list)


class ShardData(RecordData):
    """Samples of tar shards."""

    blocks: np.ndarray

    def __init__(self, shards: str, independent: bool = False) -> None:
        paths = several_files(shards, ".tar")
        super().__init__(shards, paths[0].parent, independent)
        self.files = PrivateFiles(paths)
        records, texts, pictures, picture_ends, counts = array("q"), array("q"), array("q"), array("q"), []
        for path in paths:
            samples = _read_headers(path)
            counts.append(len(samples))
            for sample in samples:
                records.extend(sample.record)
                texts.extend(sample.text)
                for _, start, size in sorted(sample.pictures, key=lambda picture: _natural(picture[0])):
                    pictures.extend((start, size))
                picture_ends.append(len(pictures) // 2)
        self.records, self.texts, self.picture_places = table_of(records), table_of(texts), table_of(pictures)
        self.picture_ends = np.array(picture_ends, dtype=np.int64)
        self.lie_in_blocks(counts)
        if not len(self):
            raise DataError(f"{shards} holds no samples, expected members key{RECORD_ENDING} (or .txt) and key.jpg")

    def __len__(self) -> int:
        return len(self.records)

    def record(self, index: int) -> Any:
        if self.texts[index][1] == UNSEEN[1]:
            raise BadSampleError("has video or sound beside it, which this model cannot take in", "unseen_medium")
        written, text = self._read(index, self.records[index]), self._read(index, self.texts[index])
        if written is None and text is None:
            raise BadSampleError(f"has no {RECORD_ENDING} beside its pictures, nor {TEXT_ENDING}", "no_conversation")
        record: Any = {} if written is None else parse_record(written)
        if text is None or not isinstance(record, dict) or is_spoken(record):
            return record
        try:
            return {**record, "caption": text.decode("utf-8")}
        except UnicodeDecodeError as error:
            raise BadSampleError(f"has a {TEXT_ENDING} that is not UTF-8: {error}", "unreadable_record") from error

    def _read(self, index: int, place: np.ndarray) -> bytes | None:
        """A member's bytes; None for one that is not there."""
        start, size = place.tolist()
        return None if size < 0 else self.files.read(self.block_at(index)[0], start, size)

    def where(self, index: int, record: Any) -> Where:
        """A sample's place, with its shard; without an id of its own, its number in the shard."""
        shard, number = self.block_at(index)
        path = self.files.paths[shard]
        found = identity(record)
        return Where(str(path), number, f"{path.stem}/{number}" if found is None else found)

    def conversation(self, index: int, record: Any) -> Conversation:
        """What a record says, with the pictures that lie beside it in place of those it names."""
        first = int(self.picture_ends[index - 1]) if index else 0
        places = self.picture_places[first : int(self.picture_ends[index])]
        record = check_record(record)
        named = len(pictures_named(record))
        if named and named != len(places):
            raise BadSampleError(f"names {named} pictures, but {len(places)} lie beside it", "missing_picture")
        shard, _ = self.block_at(index)
        beside = [self.files.read(shard, start, size) for start, size in places.tolist()]
        others = {key: value for key, value in record.items() if key not in PICTURE_FIELDS}
        return super().conversation(index, {**others, "images": beside})

    def sizes(self) -> Sizes:
        texts, pictures = np.zeros(len(self), dtype=np.int64), np.diff(self.picture_ends, prepend=0)
        for index in range(len(self)):
            try:
                record = check_record(self.record(index))
                texts[index] = text_size({"images": [None] * int(pictures[index]), **record})[0]
            except BadSampleError:
                continue  # it is met again, and named, when it is read to be learned from
        return Sizes(texts, pictures)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2 before 10."""
    return [(int(run), "") if run.isdecimal() else (-1, run) for run in re.split(r"(\d+)", name)]


def _read_headers(path: Path) -> list[_Members]:
    """A shard's samples, in the order in which their first members stand."""
    expected = "expected a whole one, not compressed"
    samples: dict[tuple[str, str], _Members] = {}
    if is_lfs_pointer(path):
        raise DataError(f"{path} is {LFS_POINTER}")
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                shard.members = []  # type: ignore[attr-defined] # tarfile would keep every one
                folder, _, name = member.name.rpartition("/")
                if member.isreg() and not name.startswith("."):
                    _add_member(samples, folder, name, (member.offset_data, member.size))
            end = shard.offset
    except tarfile.TarError as error:
        raise DataError(f"{path} cannot be read as a tar: {error}; {expected}") from error
    with open(path, "rb") as file:  # tarfile takes a header that is cut off or damaged for the end
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if block and block != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{path} cannot be read as a tar: no member begins at byte {end}; {expected}")
    return list(samples.values())


def _add_member(samples: dict[tuple[str, str], _Members], folder: str, name: str, place: tuple[int, int]) -> None:
    """Note where one member stands, under its sample."""
    key, _, rest = name.partition(".")
    ending = "." + rest.rpartition(".")[2].lower()
    sample = samples.setdefault((folder, key), _Members())
    if ending == RECORD_ENDING:
        sample.record = place
    elif ending == TEXT_ENDING and sample.text != UNSEEN:
        sample.text = place
    elif ending in UNSEEN_ENDINGS:
        sample.text = UNSEEN
    elif ending in ENDINGS:
        sample.pictures.append((rest, *place))
