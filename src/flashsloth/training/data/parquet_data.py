"""Parquet, read a row group at a time; columns that no layout knows are left alone.

A picture is a path, encoded bytes, or a struct of both (`{"bytes", "path"}`, as the `datasets` library writes it). Each
process keeps the row groups that were last used; the order of training (see `order.py`) stays within a few of them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.media.limits import cause
from flashsloth.training.data.conversation import Conversation
from flashsloth.training.data.foreign_file import refuse_foreign
from flashsloth.training.data.layouts import FIELDS, could_be
from flashsloth.training.data.record_data import RecordData, text_size
from flashsloth.training.data.sample import BadSampleError, DataError, Sizes
from flashsloth.training.data.several_files import several_files

SHOWN_COLUMNS = 20
NO_PICTURE = {"bytes": None, "path": None}
"""How some tables write that there is none."""
KEPT_BYTES = 512 << 20
"""Row groups kept in a process, at most, decoded; the one in use is always kept."""
BATCH_ROWS = 1024


class ParquetData(RecordData):
    """Rows of one Parquet file or several."""

    blocks: np.ndarray

    def __init__(self, files: str, images: str | None = None, independent: bool = False) -> None:
        self.paths = several_files(files, ".parquet")
        super().__init__(files, Path(images) if images else self.paths[0].parent, independent)
        self.groups: list[tuple[int, int]] = []
        rows = []
        self.columns: list[list[str]] = []
        for number, path in enumerate(self.paths):
            parquet = _open_parquet(path)
            self.columns.append(_columns(path, parquet))
            for group in range(parquet.metadata.num_row_groups):
                self.groups.append((number, group))
                rows.append(parquet.metadata.row_group(group).num_rows)
        self.blocks = np.array(rows, dtype=np.int64)
        self.ends = self.blocks.cumsum()
        if not len(self):
            raise DataError(f"{files} holds no samples, expected rows with conversations or messages")
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._open: dict[int, Any] = {}
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_kept": OrderedDict()}

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def record(self, index: int) -> Any:
        block = int(np.searchsorted(self.ends, index, side="right"))
        table = self._group(block)
        row = index - int(self.ends[block] - self.blocks[block])
        try:
            record = table.slice(row, 1).to_pylist()[0]
        except _failures() as error:  # text that is not UTF-8
            raise BadSampleError(f"cannot be read: {error}", "unreadable_record") from error
        return {field: None if value == NO_PICTURE else value for field, value in record.items()}

    def _group(self, block: int) -> Any:
        """A row group's table, from those kept or from the file."""
        if self._process != os.getpid():
            self._forget()
        if block in self._kept:
            self._kept.move_to_end(block)
            return self._kept[block]
        number, group = self.groups[block]
        if number not in self._open:
            self._open[number] = _open_parquet(self.paths[number])
        try:  # Arrow's threads would not live on in a worker that was forked
            table = self._open[number].read_row_group(group, columns=self.columns[number], use_threads=False)
        except _failures() as error:
            raise BadSampleError(
                f"its row group {group} cannot be read: {cause(error)}", "unreadable_record"
            ) from error
        self._kept[block] = table
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return table

    def conversation(self, index: int, record: Any) -> Conversation:
        """What a record says, each picture as its bytes or its path."""
        said = super().conversation(index, record)
        return said._replace(pictures=[_picture(found) for found in said.pictures])

    def sizes(self) -> Sizes:
        found: list[tuple[int, int]] = []
        opened = -1
        for (number, group), rows in zip(self.groups, self.blocks.tolist(), strict=True):
            if number != opened:
                parquet, opened = _open_parquet(self.paths[number]), number
            first = len(found)
            small = _small(parquet, self.columns[number])
            try:
                for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=small):
                    found += [text_size(record) for record in batch.to_pylist()]
            except _failures():
                found += [(0, 0)] * (first + rows - len(found))  # they are met again, and named, when they are read
        sizes = np.array(found, dtype=np.int64).reshape(-1, 2)
        return Sizes(sizes[:, 0], sizes[:, 1])


def _failures() -> tuple[type[Exception], ...]:
    """What Arrow raises on a damaged file; ValueError is of names and texts that are not UTF-8."""
    import pyarrow

    return (pyarrow.ArrowException, OSError, ValueError)


def _picture(found: Any) -> Any:
    """A struct of bytes and path as the one of them that is there."""
    if isinstance(found, dict):
        return found["bytes"] if found.get("bytes") is not None else found.get("path")
    return found


def _open_parquet(path: Path) -> Any:
    refuse_foreign(path)
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("Parquet needs pyarrow: pip install 'flashsloth[parquet]'") from error
    try:
        opened = parquet.ParquetFile(path)
        opened.schema_arrow  # noqa: B018 - read here, so that a damaged one is found here
    except _failures() as error:
        raise DataError(f"{path} cannot be read as Parquet: {cause(error)}") from error
    return opened


def _columns(path: Path, parquet: Any) -> list[str]:
    """The columns of ours that a file has, whatever their case."""
    names = parquet.schema_arrow.names
    lower = {name.lower(): name for name in names}
    if not could_be(names):
        raise DataError(
            f"{path} has the columns {names[:SHOWN_COLUMNS]}, expected conversations or messages among them, or "
            f"those of another layout"
        )
    return [name if name in names else lower[name] for name in FIELDS if name in lower]


def _small(parquet: Any, columns: list[str]) -> list[str]:
    """The leaves of `columns` without the bytes of pictures that have a path beside them."""
    leaves = [parquet.schema.column(number).path for number in range(len(parquet.schema))]
    ours = [leaf for leaf in leaves if leaf.split(".")[0] in columns]
    return [leaf for leaf in ours if not leaf.endswith(".bytes") or f"{leaf.removesuffix('.bytes')}.path" not in ours]


__all__ = ["ParquetData"]
