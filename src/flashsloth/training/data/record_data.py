"""Datasets of records, whatever the file: what JSON, JSONL, Parquet and shards have in common.

In: a subclass that reads record i. Out: a map-style dataset of :class:`Sample`; pictures stay closed until the
processor opens them, in the worker that needs them.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch.utils.data import Dataset

from flashsloth.training.data.conversation import Conversation, messages_of
from flashsloth.training.data.layouts import check_record, identity, read_record
from flashsloth.training.data.picture_files import find_picture
from flashsloth.training.data.sample import BadSampleError, DataError, Sample, Sizes, Where


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
            raise DataError(f"{self.paths[number]} has become shorter since it was opened: start anew with whole files")
        return data


def text_size(record: Any) -> tuple[int, int]:
    """(bytes of text or about as many, pictures) of a record, as far as it can be read; (0, 0) of a bad one."""
    try:
        said = read_record(record)
    except BadSampleError:
        return 0, 0
    return sum(len(turn.text) for turn in said.turns), len(said.pictures)


__all__ = ["PrivateFiles", "RecordData", "text_size"]
