"""A table of tab-separated values whose pictures stand in it, base64-encoded, as MMBench is published.

In: a file. Out: its rows, and for each a reader of its picture, which goes back to the row's place in the file.
"""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from flashsloth.evaluation.task import EvaluationError
from flashsloth.files import LFS_POINTER, is_lfs_pointer

LONGEST = 2**31 - 1
"""Characters of a field; the csv module's own limit is below a picture's size."""
REFERENCE = 64
"""Characters up to which the field of a picture is the index of another row that has it."""
IMAGE, INDEX = "image", "index"


def tsv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[dict[str, str], Callable[[], bytes]]]:
    """(fields without the picture, its reader) of each row.

    Args:
        path: the file.
        columns: that it must have, beside `index` and `image`.

    Raises:
        EvaluationError: where it is no such table, or cut off.
    """
    if is_lfs_pointer(path):
        raise EvaluationError(f"{path} is {LFS_POINTER}")
    rows, places = [], {}
    for row, place in _rows_with_places(path, (INDEX, IMAGE, *columns)):
        image = row.pop(IMAGE)
        if len(image) > REFERENCE:
            places[row[INDEX]] = place
        rows.append((row, row[INDEX] if len(image) > REFERENCE else image.strip()))
    for row, owner in rows:
        if owner not in places:
            raise EvaluationError(
                f"{path}: row {row[INDEX]} has no picture, nor has a row {owner!r}: download it again"
            )
        yield row, _reader(path, *places[owner])


def _rows_with_places(path: Path, columns: Sequence[str]) -> Iterator[tuple[dict[str, str], tuple[int, int, int]]]:
    """(row, (its first byte, one past its last, the picture's column))."""
    csv.field_size_limit(LONGEST)
    end = 0

    def lines(file: Iterable[bytes]) -> Iterator[str]:
        nonlocal end
        for line in file:
            end += len(line)
            yield line.decode("utf-8")

    try:
        with path.open("rb") as file:
            reader = csv.reader(lines(file), delimiter="\t")
            names = next(reader, [])
            if missing := [name for name in columns if name not in names]:
                raise EvaluationError(f"{path} has no column {', '.join(missing)}, only {', '.join(names)[:200]}")
            start = end
            for fields in reader:
                if len(fields) != len(names):
                    raise EvaluationError(
                        f"{path}: the row at byte {start:,} has {len(fields)} fields, expected {len(names)}: "
                        "it was cut off; download it again"
                    )
                yield dict(zip(names, fields, strict=True)), (start, end, names.index(IMAGE))
                start = end
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise EvaluationError(f"{path} cannot be read ({error}): download it again") from error


def _reader(path: Path, start: int, end: int, column: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            [fields] = csv.reader(file.read(end - start).decode("utf-8").splitlines(keepends=True), delimiter="\t")
        try:
            return base64.b64decode(fields[column], validate=True)
        except binascii.Error as error:
            raise EvaluationError(f"{path}: the picture at byte {start:,} is not base64 ({error})") from error

    return read
