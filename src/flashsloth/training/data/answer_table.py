"""A table of pictures, questions and answers, as people keep one, to LLaVA's JSON.

In: a CSV or TSV file with a header, or JSON Lines: `image` (a path from the pictures' folder; empty for a question
without a picture), `question`, `answer`, a row each. Out: `train.json` and `held_out.json`.

A picture is wholly on one side: what is measured on held-out pictures was not seen. Which ones are held out is drawn
from the pictures' names, so it does not change when rows are put in another order.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashsloth.errors import FlashSlothError
from flashsloth.files import write_whole

COLUMNS = ("image", "question", "answer")
TRAIN_FILE, HELD_OUT_FILE = "train.json", "held_out.json"
LINES_SUFFIX = ".jsonl"
DELIMITERS = ",;\t"
PROBLEMS_SHOWN = 5
_PLACEHOLDER = "<image>"


class TableError(FlashSlothError, ValueError):
    """A table that cannot be used as it is: the rows are named."""


@dataclass(frozen=True)
class Row:
    """One question; `line` is where it ends in the file."""

    line: int
    image: str
    question: str
    answer: str

    def problem(self, images: Path) -> str | None:
        """What is wrong with it; None for nothing."""
        if not self.question:
            return "its question is empty"
        if not self.answer:
            return "its answer is empty: nothing could be learned from it"
        if _PLACEHOLDER in self.question:
            return f"its question holds {_PLACEHOLDER}, which is put in by itself"
        if self.image and not (images / self.image).is_file():
            return f"there is no {images / self.image}"
        return None

    def record(self) -> dict[str, Any]:
        """As LLaVA's JSON has it."""
        place = f"{_PLACEHOLDER}\n" if self.image else ""
        turns = [{"from": "human", "value": place + self.question}, {"from": "gpt", "value": self.answer}]
        return {"id": f"line-{self.line}", **({"image": self.image} if self.image else {}), "conversations": turns}


@dataclass(frozen=True)
class Split:
    """What was written: the files, their rows, and the pictures that each has for itself."""

    train: Path
    held_out: Path | None
    train_rows: int
    held_out_rows: int
    train_pictures: int
    held_out_pictures: int


def write_training_data(table: Path, images: Path, out: Path, held_out: float = 0.1) -> Split:
    """Turn a table into training data.

    Args:
        table: the file.
        images: the folder that its pictures' paths start from.
        out: a folder, made if need be; its `train.json` and `held_out.json` are replaced.
        held_out: the share of the pictures (or, where there are none, of the rows) that is kept for measuring.

    Raises:
        TableError: for a table that cannot be read, or rows that cannot be learned from.
    """
    if not 0 <= held_out < 1:
        raise TableError(f"held_out is {held_out}, expected at least 0 and less than 1")
    rows = read_table(table)
    problems = [f"line {row.line}: {problem}" for row in rows if (problem := row.problem(images)) is not None]
    if problems:
        more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise TableError(f"{table}: {'; '.join(problems[:PROBLEMS_SHOWN])}{more}")
    names = sorted({_name(row) for row in rows}, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    kept = set(names[: max(1, round(held_out * len(names))) if held_out else 0])
    train = [row for row in rows if _name(row) not in kept]
    rest = [row for row in rows if _name(row) in kept]
    if not train:
        raise TableError(f"{table} has one picture, which is held out: add pictures, or hold out 0")
    out.mkdir(parents=True, exist_ok=True)
    _write(out / TRAIN_FILE, train)
    if rest:
        _write(out / HELD_OUT_FILE, rest)
    return Split(
        train=out / TRAIN_FILE,
        held_out=out / HELD_OUT_FILE if rest else None,
        train_rows=len(train),
        held_out_rows=len(rest),
        train_pictures=len({row.image for row in train if row.image}),
        held_out_pictures=len({row.image for row in rest if row.image}),
    )


def read_table(table: Path) -> list[Row]:
    """The rows of a table.

    Raises:
        TableError: if it is no table, or lacks a column.
    """
    if not table.is_file():
        raise TableError(f"no table at {table}: expected a CSV file with the columns {', '.join(COLUMNS)}, or .jsonl")
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{table} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    rows = list(_lines(table, text) if table.suffix == LINES_SUFFIX else _cells(table, text))
    if not rows:
        raise TableError(f"{table} has no rows: expected {', '.join(COLUMNS)} in each")
    return rows


def _cells(table: Path, text: str) -> Iterator[Row]:
    """A CSV's rows; what parts its cells is what its header is parted by."""
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    names = [name.strip().lower() for name in reader.fieldnames or []]
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise TableError(f"{table} has the columns {names}, expected {', '.join(COLUMNS)} in its first line")
    reader.fieldnames = names
    try:
        for cells in reader:
            if None in cells or None in cells.values():
                raise TableError(
                    f"{table}, line {reader.line_num}: not as many cells as the header has ({len(names)}): put text "
                    f"that holds {delimiter!r} in quotes"
                )
            yield _row(table, reader.line_num, cells)
    except csv.Error as error:
        raise TableError(f"{table}, line {reader.line_num}: {error}") from error


def _lines(table: Path, text: str) -> Iterator[Row]:
    """A row for each line of JSON."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise TableError(f"{table}, line {number}: not JSON ({error})") from error
        if not isinstance(cells, dict) or not set(COLUMNS) <= set(cells):
            found = sorted(cells) if isinstance(cells, dict) else type(cells).__name__
            raise TableError(f"{table}, line {number}: found {found}, expected an object with {', '.join(COLUMNS)}")
        yield _row(table, number, cells)


def _row(table: Path, line: int, cells: dict[str, Any]) -> Row:
    values = {}
    for column in COLUMNS:
        value = cells.get(column)
        if column == "image" and value is None:
            value = ""
        if not isinstance(value, str):
            raise TableError(f"{table}, line {line}: {column} is {value!r}, expected a text")
        values[column] = value.strip()
    return Row(line, **values)


def _name(row: Row) -> str:
    """What a row is held out by: its picture, or its question where it has none."""
    return row.image or row.question


def _write(file: Path, rows: list[Row]) -> None:
    text = json.dumps([row.record() for row in rows], ensure_ascii=False, indent=1)
    write_whole(file, text + "\n")
