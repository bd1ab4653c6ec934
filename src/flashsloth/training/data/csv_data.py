"""A CSV or TSV file with a header: a sample a row, its cells under the names of their columns, in lower case.

In: a file whose columns are those of a layout, such as image, question, answer. Out: a dataset; of each row its place
in the file is kept. An empty cell is nothing; an empty image is a sample without a picture.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.training.data.json_data import SpanData
from flashsloth.training.data.layouts import could_be
from flashsloth.training.data.sample import BadSampleError, DataError

DELIMITERS = ",;\t"
LARGEST_CELL = (1 << 31) - 1
"""Characters: pictures stand in some tables as base64, and csv's own limit is 131,072."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
        self.spans = np.frombuffer(rows, dtype=np.int64).reshape(-1, 2) if rows else np.zeros((0, 2), dtype=np.int64)

    def record(self, index: int) -> Any:
        start, stop = (int(value) for value in self.spans[index])
        try:
            text = self.files.read(0, start, stop - start).decode("utf-8")
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


__all__ = ["CsvData"]
