"""Tables whose columns are those of a layout, such as image, question, answer: a sample a row.

Parquet is read a row group at a time; columns that no layout knows are left alone. A picture is a path, encoded bytes,
or a struct of both (`{"bytes", "path"}`, as the `datasets` library writes it). Each process keeps the row groups that
were last used; the order of training (see `sampler.py`) stays within a few of them.

Of CSV or TSV with a header the place of each row is kept. An empty cell is nothing; an empty image is a sample without
a picture.
"""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.media.limits import cause
from flashsloth.training.data.conversation import Conversation
from flashsloth.training.data.json_data import SpanData
from flashsloth.training.data.json_spans import BYTE_ORDER_MARK, table_of
from flashsloth.training.data.layouts import FIELDS, could_be
from flashsloth.training.data.records import RecordData, several_files, text_size
from flashsloth.training.data.refused_files import refuse_foreign
from flashsloth.training.data.sample import BadSampleError, DataError, Sizes

SHOWN_COLUMNS = 20
NO_PICTURE = {"bytes": None, "path": None}
"""How some tables write that there is none."""
KEPT_BYTES = 512 << 20
"""Row groups kept in a process, at most, decoded; the one in use is always kept."""
BATCH_ROWS = 1024
DELIMITERS = ",;\t"
LARGEST_CELL = (1 << 31) - 1
"""Characters: pictures stand in some tables as base64, and csv's own limit is 131,072."""


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
        self.lie_in_blocks(rows)
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
        return int(self.blocks.sum())

    def record(self, index: int) -> Any:
        block, row = self.block_at(index)
        table = self._group(block)
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


class CsvData(SpanData):
    """Rows of one table."""

    format = "CSV"

    def _open(self, file: Path) -> None:
        csv.field_size_limit(LARGEST_CELL)
        rows = array("q")
        with open(file, "rb") as opened:
            first = opened.readline()
            self.delimiter = max(DELIMITERS, key=first.decode("latin-1").count)
            opened.seek(len(BYTE_ORDER_MARK) if first.startswith(BYTE_ORDER_MARK) else 0)
            lines = _Lines(opened)
            reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
            try:
                header = next(reader, [])
                start = lines.place
                for cells in reader:
                    if cells:
                        rows.extend((start, lines.place))
                    start = lines.place
            except csv.Error as error:
                raise DataError(f"{file}, line {reader.line_num}: {error}") from error
        self.header = [_decoded(name.encode("latin-1"), file).strip().lower() for name in header]
        if not could_be(self.header):
            raise DataError(f"{file} has the columns {self.header[:10]}, expected image, question, answer")
        if len(set(self.header)) < len(self.header):
            raise DataError(f"{file} has two columns of the same name: {self.header[:10]}")
        self.spans = table_of(rows)

    def record(self, index: int) -> Any:
        try:
            text = self.bytes_at(self.spans[index]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadSampleError(f"is not UTF-8: {error}", "unreadable_record") from error
        csv.field_size_limit(LARGEST_CELL)
        cells = next(csv.reader(io.StringIO(text, newline="\n"), delimiter=self.delimiter, strict=True))
        if len(cells) != len(self.header):
            raise BadSampleError(
                f"has {len(cells)} cells, the header {len(self.header)}: put text with {self.delimiter!r} in quotes",
                "unreadable_record",
            )
        return {name: cell.strip() for name, cell in zip(self.header, cells, strict=True) if cell.strip()}


class _Lines:
    """The lines of a file as text, a character a byte, and the place behind the last one that was taken."""

    def __init__(self, file: Any) -> None:
        self.file, self.place = file, file.tell()

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            self.place += len(line)
            yield line.decode("latin-1")


def _decoded(name: bytes, file: Path) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 ({error.reason} in its header): save it as UTF-8") from error
