"""`predictions.jsonl`: a header, then a line an item; written as answers come, read back after any end.

    {"header": {"task": "pope", "preset": "paper", "settings": {...}, "model": {...}, "data": {...}, ...}}
    {"id": "...", "prompt": "...", "truth": {...}, "group": "...", "picture": "...", "answer": "Yes", "tokens": 2, ...}

Lines are flushed one by one; a line that was cut off is dropped when the file is read, and written again. A file whose
header differs is refused: answers of another model, other settings or other data would be mixed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from flashsloth.evaluation.item import Item, Prediction
from flashsloth.evaluation.task import EvaluationError
from flashsloth.files import whole_file

PREDICTIONS = "predictions.jsonl"
FORMAT = 1
"""Of the header."""
FIELDS = tuple(one.name for one in fields(Prediction))
JUDGE, JUDGEMENTS = "judge", "judgements"
"""Who judged, in the header, which is known after the answers; and what was said, in a line."""
SHOWN = 3
"""Differences and ids that an error names."""


def data_digest(items: Iterable[Item]) -> str:
    """Of what is asked and what is right, in any order; pictures are known by their names."""
    lines = sorted(json.dumps([item.id, item.prompt, item.truth, item.group, item.picture]) for item in items)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def write_header(file: IO[str], header: dict[str, Any]) -> None:
    """The first line of a new file."""
    _write_line(file, {"header": {"format": FORMAT, **header}})


def write_prediction(file: IO[str], prediction: Prediction) -> None:
    """One line, which is in the file when this returns."""
    _write_line(file, asdict(prediction))


def _write_line(file: IO[str], row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()
    os.fsync(file.fileno())


def read_predictions(path: Path) -> tuple[dict[str, Any], list[Prediction]]:
    """The header and the predictions of a file; a last line that was cut off is left out.

    Raises:
        EvaluationError: where it is no such file, or a line that is not the last cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}): expected a {PREDICTIONS}") from error
    whole, _, _ = content.rpartition(b"\n")
    rows = [_row(path, number, line) for number, line in enumerate(whole.split(b"\n"), 1) if line.strip()]
    header = rows[0].get("header") if rows else None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise EvaluationError(f"{path} does not begin with a header of format {FORMAT}: it is not a {PREDICTIONS}")
    return header, [_prediction(path, number, row) for number, row in enumerate(rows[1:], 2)]


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise EvaluationError(f"{path}, line {number}, is not JSON ({error}): remove the line, and resume") from error
    if not isinstance(row, dict):
        raise EvaluationError(f"{path}, line {number}, is {type(row).__name__}, expected an object")
    return row


def _prediction(path: Path, number: int, row: dict[str, Any]) -> Prediction:
    known = {name: row[name] for name in FIELDS if name in row}
    judgements = known.get(JUDGEMENTS, [])
    if not isinstance(judgements, list) or not all(isinstance(one, str) for one in judgements):
        raise EvaluationError(f"{path}, line {number}: judgements is {judgements!r}, expected a list of texts")
    known[JUDGEMENTS] = tuple(judgements)
    try:
        prediction = Prediction(**known)
    except TypeError as error:
        raise EvaluationError(f"{path}, line {number}, lacks a field ({error})") from error
    if not all(isinstance(getattr(prediction, name), str) for name in ("id", "prompt", "group", "picture", "answer")):
        raise EvaluationError(f"{path}, line {number}: id, prompt, group, picture and answer are not all texts")
    if not isinstance(prediction.truth, dict):
        raise EvaluationError(f"{path}, line {number}: truth is {type(prediction.truth).__name__}, expected an object")
    return prediction


def drop_torn_line(path: Path) -> None:
    """Cut what stands after the last whole line, before more is appended."""
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def check_same_header(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse to go on with a file that was begun otherwise.

    Raises:
        EvaluationError: naming what differs.
    """
    expected = {"format": FORMAT, **expected}
    different = [key for key in sorted({*found, *expected} - {JUDGE}) if found.get(key) != expected.get(key)]
    if different:
        shown = "; ".join(f"{key}: {found.get(key)!r} there, {expected.get(key)!r} here" for key in different[:SHOWN])
        raise EvaluationError(f"{path} was begun otherwise ({shown}): choose another folder by --out, or remove it")


def in_order(predictions: Iterable[Prediction], items: Sequence[Item], where: str) -> list[Prediction]:
    """Predictions in the data's order, every item's exactly once.

    Raises:
        EvaluationError: where an id is missing, there twice, or not of this data; where a prompt differs.
    """
    found: dict[str, Prediction] = {}
    for one in predictions:
        if one.id in found:
            raise EvaluationError(f"{where} has {one.id!r} twice, expected each id once")
        found[one.id] = one
    missing = [item.id for item in items if item.id not in found]
    foreign = [name for name in found if name not in {item.id for item in items}]
    for ids, what in ((missing, "lacks"), (foreign, "has, but the data does not,")):
        if ids:
            named = ", ".join(repr(one) for one in ids[:SHOWN])
            raise EvaluationError(f"{where} {what} {len(ids):,} of {len(items):,} ids: {named}, ...")
    return [found[item.id] for item in items]


def write_predictions(path: Path, header: dict[str, Any], predictions: Iterable[Prediction]) -> None:
    """A whole file, at once or not at all."""
    with whole_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for row in ({"header": {"format": FORMAT, **header}}, *map(asdict, predictions)):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
