"""Datasets of records, whatever the file: what JSON, JSONL, CSV, Parquet and shards have in common.

In: a subclass that reads record i. Out: a map-style dataset of :class:`Sample`; pictures stay closed until the
processor opens them, in the worker that needs them.

Also which files are meant by one text (a file, a folder, a pattern with `*`, or numbers as in `{000..099}`), and, for
commands that are given one without a recipe, what its name says that they hold.
"""

from __future__ import annotations

import glob
import os
import re
from abc import abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch.utils.data import Dataset

from flashsloth.training.data.conversation import Conversation, find_picture, messages_of
from flashsloth.training.data.layouts import check_record, identity, read_record
from flashsloth.training.data.refused_files import refuse_arrow
from flashsloth.training.data.sample import BadSampleError, DataError, Sample, Sizes, Where
from flashsloth.training.recipe_fields import DataSource

SPLITS = ("train", "test", "validation", "val", "dev")
MOST_IN_A_RANGE = 1_000_000
_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?![A-Za-z])")
"""How a file's name, or its folder's, begins that is of a split."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WILD = re.compile(r"[*?\[]")
KINDS_BY_ENDING = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".tar": "shards",
}
COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip")
_PATTERN_END = re.compile(r"[}\]*?]+$")


class RecordData(Dataset):
    """Records of one source.

    Attributes:
        name: the source, for messages.
        images: the folder picture paths start from.
        independent: see :class:`Sample`.
        blocks: int64 [K], samples that lie together in a file, block after block, where reading them together is
            cheaper; None where each is as near as any other.
    """

    blocks: np.ndarray | None = None
    layout: str | None = None
    """What the file as a whole is, in words; None where each record shows it."""

    def __init__(self, name: str, images: Path, independent: bool = False) -> None:
        if not images.is_dir():
            raise DataError(f"there is no folder of pictures at {images}: say where they are (images:, or --images)")
        self.name, self.images, self.independent = name, images, independent

    def lie_in_blocks(self, counts: list[int]) -> None:
        """Say how many samples lie together, block after block."""
        self.blocks = np.array(counts, dtype=np.int64)
        self.ends = self.blocks.cumsum()

    def block_at(self, index: int) -> tuple[int, int]:
        """The block that a sample lies in, and its number there."""
        block = int(np.searchsorted(self.ends, index, side="right"))
        return block, index - (int(self.ends[block - 1]) if block else 0)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def record(self, index: int) -> Any:
        """What the file holds; raises BadSampleError where it cannot be read."""

    @abstractmethod
    def sizes(self) -> Sizes:
        """What is known of every sample without opening pictures."""

    def conversation(self, index: int, record: Any) -> Conversation:
        """What a record says, its pictures as they are named.

        Raises:
            BadSampleError: if it cannot be learned from.
        """
        return read_record(record)

    def layout_at(self, index: int) -> str:
        """What a record was read as, in words; raises as :meth:`conversation`."""
        return self.layout or self.conversation(index, check_record(self.record(index))).layout

    def find(self, picture: Any) -> Any:
        """What the processor opens for a picture: bytes as they are, the file that a name means."""
        return picture if isinstance(picture, bytes) else find_picture(self.images, picture)

    def __getitem__(self, index: int) -> Sample:
        """A sample; raises BadSampleError, which says where it is."""
        where = self.where(index, None)
        try:
            record = check_record(self.record(index))
            where = self.where(index, record)
            said = self.conversation(index, record)
            messages = messages_of(said, self.find)
        except BadSampleError as error:
            raise error.at(where) from error.__cause__
        answers = sum(role == "assistant" for role, _ in said.turns)
        return Sample(messages, ["answer"] * answers, self.independent, where=where)

    def where(self, index: int, record: Any) -> Where:
        """A sample's place."""
        found = identity(record)
        return Where(self.name, index, str(index) if found is None else found)


class PrivateFiles:
    """Files that are open for reading, each process its own: a worker neither shares nor inherits one."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._open: dict[int, BinaryIO] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["paths"])  # type: ignore[misc]

    def read(self, number: int, start: int, size: int) -> bytes:
        """Some bytes of one of the files.

        Raises:
            DataError: if the file no longer has them.
        """
        if self._process != os.getpid():
            self._open, self._process = {}, os.getpid()
        if number not in self._open:
            self._open[number] = open(self.paths[number], "rb", buffering=0)  # noqa: SIM115 - stays open
        data = os.pread(self._open[number].fileno(), size, start)
        if len(data) != size:
            raise DataError(
                f"{self.paths[number]} has become shorter since it was opened: start again with whole files"
            )
        return data


def text_size(record: Any) -> tuple[int, int]:
    """(bytes of text or about as many, pictures) of a record, as far as it can be read; (0, 0) of a bad one."""
    try:
        said = read_record(record)
    except BadSampleError:
        return 0, 0
    return sum(len(turn.text) for turn in said.turns), len(said.pictures)


def several_files(text: str, ending: str) -> list[Path]:
    """The files, in order.

    Args:
        text: as in the recipe.
        ending: what a folder's files must end with.

    Raises:
        DataError: if there are none, or one that is named is not there.
    """
    if Path(text).is_dir():
        return _in_folder(Path(text), ending)
    files = []
    for name in _numbered(text):
        if _WILD.search(name) and not Path(name).is_file():
            files += [Path(found) for found in sorted(glob.glob(name))]
        else:
            files.append(Path(name))
    if not files:
        raise DataError(f"no data at {text}: no file is called like that")
    for file in files:
        if not file.is_file():
            raise DataError(f"no data at {file}: no such file")
    return files


def _in_folder(folder: Path, ending: str) -> list[Path]:
    """A folder's files; where it has none itself, those of the folders in it, hidden ones left out.

    Raises:
        DataError: if there are none, or they are of more than one split.
    """
    refuse_arrow(folder)
    found = [
        file
        for file in sorted(folder.rglob(f"*{ending}"))
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    files = [file for file in found if file.parent == folder] or found
    if not files:
        raise DataError(f"no data in {folder}: expected files *{ending}")
    parts = [map(_SPLIT.match, file.relative_to(folder).parts) for file in files]
    splits = sorted({next(filter(None, matches)).group(1) for matches in map(list, parts) if any(matches)})
    if len(splits) > 1:  # one for testing beside the one for training: both would be learned from
        raise DataError(f"{folder} holds the splits {', '.join(splits)}: name the files of one of them")
    return files


def _numbered(text: str) -> list[str]:
    """Every name that a range of numbers stands for; with leading zeros where the range has them."""
    match = _RANGE.search(text)
    if match is None:
        return [text]
    first, last = match.groups()
    if int(first) > int(last):
        raise DataError(f"{text}: the range {match.group()} goes down, expected the smaller number first")
    if int(last) - int(first) >= MOST_IN_A_RANGE:
        raise DataError(f"{text}: the range {match.group()} has more than {MOST_IN_A_RANGE:,} numbers")
    width = len(first)
    names = (f"{text[: match.start()]}{n:0{width}d}{text[match.end() :]}" for n in range(int(first), int(last) + 1))
    return [name for partial in names for name in _numbered(partial)]


def source_of(text: str, images: str | None = None) -> DataSource:
    """The source that a file, a folder of Parquet files or shards, or a pattern of them is.

    Raises:
        DataError: if its name does not tell.
    """
    path = Path(text)
    if path.is_dir():
        refuse_arrow(path)
        endings = [e for e in (".parquet", ".tar") if any(path.rglob(f"*{e}"))]
        if len(endings) != 1:
            found = " and ".join(f"*{ending}" for ending in endings) or "neither"
            raise DataError(f"{text} is a folder with {found}: expected *.parquet or *.tar in it, or name a file")
        kind = KINDS_BY_ENDING[endings[0]]
    else:
        ending = Path(_PATTERN_END.sub("", text)).suffix.lower()
        if ending in COMPRESSED:
            raise DataError(f"{text} is compressed: unpack it first, samples are read where they stand")
        if ending == ".arrow":
            refuse_arrow(path.parent)
        if ending not in KINDS_BY_ENDING:
            raise DataError(f"{text} ends with {ending!r}, expected one of {', '.join(KINDS_BY_ENDING)}")
        kind = KINDS_BY_ENDING[ending]
    if kind == "shards" and images is not None:
        raise DataError(f"{text} is of shards, which bring their pictures: leave the folder of pictures out")
    return DataSource(**{kind: text, "images": images})  # type: ignore[arg-type]
