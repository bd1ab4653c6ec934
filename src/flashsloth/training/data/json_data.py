"""LLaVA's JSON list and JSONL, read by place: of a million samples, two numbers each are kept, and no text.

Which of the two a file is, its content says: lines called .json are read as lines.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.training.data.foreign_file import refuse_foreign
from flashsloth.training.data.json_spans import Shape, json_elements, jsonl_spans, printed_spans, shape_of
from flashsloth.training.data.json_text import parse_json
from flashsloth.training.data.record_data import PrivateFiles, RecordData, text_size
from flashsloth.training.data.sample import BadSampleError, DataError, Sizes


class SpanData(RecordData):
    """Samples that each stand somewhere in one text file.

    Args:
        path: the file.
        images: the folder picture paths start from; without it, the file's.
        independent: see :class:`Sample`.
    """

    format = "LLaVA JSON"
    spans: np.ndarray
    """int64 [N, 2], first byte of each and the byte after its last one."""

    def __init__(self, path: str, images: str | None = None, independent: bool = False) -> None:
        file = Path(path)
        if not file.is_file():
            raise DataError(f"no data at {file}: expected a {self.format} file")
        refuse_foreign(file)
        super().__init__(str(file), Path(images) if images else file.parent, independent)
        self.files = PrivateFiles([file])
        self._open(file)
        if not len(self.spans):
            raise DataError(f"{file} holds no samples, expected a non-empty list of samples")

    def _open(self, file: Path) -> None:
        """Find the spans."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.spans)

    def record(self, index: int) -> Any:
        start, stop = (int(value) for value in self.spans[index])
        text = self.files.read(0, start, stop - start)
        try:
            return parse_json(text)
        except (ValueError, RecursionError) as error:
            raise BadSampleError(f"cannot be read as JSON: {error}", "unreadable_record") from error

    def sizes(self) -> Sizes:
        found = np.array([self._size(index) for index in range(len(self))], dtype=np.int64).reshape(-1, 2)
        return Sizes(found[:, 0], found[:, 1])

    def _size(self, index: int) -> tuple[int, int]:
        try:
            return text_size(self.record(index))
        except BadSampleError:
            return 0, 0


class JsonData(SpanData):
    """A JSON file with a list of samples."""

    _sizes: np.ndarray | None = None

    def _open(self, file: Path) -> None:
        shape = shape_of(file)
        if shape in (Shape.LINES, Shape.PRINTED):
            self.spans = jsonl_spans(file) if shape is Shape.LINES else printed_spans(file)
        elif shape is Shape.OBJECT:
            raise DataError(
                f"{file} holds an object, expected a non-empty list of samples; one object a line is for jsonl:"
            )
        else:
            self._open_list(file)

    def _open_list(self, file: Path) -> None:
        """Parse a list once; the sizes are noted on the way."""
        flat = array("q")
        for start, stop, value in json_elements(file):
            flat.extend((start, stop, *text_size(value)))
        table = np.frombuffer(flat, dtype=np.int64).reshape(-1, 4) if flat else np.zeros((0, 4), dtype=np.int64)
        self.spans, self._sizes = table[:, :2], table[:, 2:]

    def sizes(self) -> Sizes:
        """As :meth:`SpanData.sizes`; those of a list were noted when it was parsed to be opened."""
        return super().sizes() if self._sizes is None else Sizes(self._sizes[:, 0], self._sizes[:, 1])


class JsonlData(JsonData):
    """A file with one sample a line, or over several lines."""

    format = "JSONL"

    def _open(self, file: Path) -> None:
        shape = shape_of(file)
        if shape is Shape.LIST:
            self._open_list(file)
        else:
            self.spans = printed_spans(file) if shape in (Shape.PRINTED, Shape.OBJECT) else jsonl_spans(file)


__all__ = ["JsonData", "JsonlData", "SpanData"]
