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
from dataclasses import asdict, fields, replace
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
ESCAPED = "backslashreplace"
"""Half characters, which no file can hold, are written as JSON escapes them."""
DATA = "data"
"""What was asked, in the header: {"items": how many, "digest": of them}."""
SHOWN = 3
"""Differences and ids that an error names."""


def data_digest(items: Iterable[Item | Prediction]) -> str:
    """Of what is asked and what is right, in any order; pictures are known by their names."""
    lines = sorted(json.dumps([item.id, item.prompt, item.truth, item.group, item.picture]) for item in items)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def ids_digest(ids: Iterable[str]) -> str:
    """Of which questions are asked, in any order, whatever their prompts."""
    return hashlib.blake2b("\n".join(sorted(ids)).encode(), digest_size=8).hexdigest()


def write_header(file: IO[str], header: dict[str, Any]) -> None:
    """The first line of a new file."""
    _write_line(file, {"header": {"format": FORMAT, **header}})


def write_prediction(file: IO[str], prediction: Prediction) -> None:
    """One line, which is the system's when this returns: no end of this process takes it away."""
    _write_line(file, asdict(prediction))


def _write_line(file: IO[str], row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()


def predictions_file(path: Path) -> Path:
    """A file of predictions, or the one that a run's folder holds."""
    return path / PREDICTIONS if path.is_dir() else path


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
    data = header.get(DATA, {"items": 0, "digest": ""})
    is_good = isinstance(data, dict) and isinstance(data.get("items"), int) and isinstance(data.get("digest"), str)
    is_good &= isinstance(header.get(JUDGE, {}), dict)
    if not is_good or not all(isinstance(header.get(name), str) for name in ("task", "preset")):
        raise EvaluationError(f"{path}: the header does not say which task, preset and data its answers are of")
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


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """What two headers do not have in common, "" for nothing; who judged, which comes later, is no part of it."""
    return "; ".join(_differences({"format": FORMAT, **found}, {"format": FORMAT, **expected})[:SHOWN])


def _differences(found: dict[str, Any], expected: dict[str, Any], prefix: str = "") -> list[str]:
    differences = []
    for key in sorted({*found, *expected} - (set() if prefix else {JUDGE})):
        one, other = found.get(key), expected.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            differences += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            differences.append(f"{prefix}{key} is {one!r} there and {other!r} here")
    return differences


def read_files(paths: Sequence[Path]) -> tuple[dict[str, Any], list[Prediction], int]:
    """One file, or all parts of one run: (header, predictions in the data's order, lines that were there twice).

    Files that this package has written say how many answers there are, and of what. In others, whose headers say
    nothing of `data`, a line may be there twice, as publishers' files have it, and then counts once.

    Raises:
        EvaluationError: where headers differ, an answer is missing, or is there twice.
    """
    header, predictions = read_predictions(paths[0])
    for path in paths[1:]:
        other, more = read_predictions(path)
        if said := difference(other, header):
            raise EvaluationError(f"{path} is not of the same run as {paths[0]}: {said}")
        predictions += more
    where = " and ".join(str(path) for path in paths)
    has = "have" if len(paths) > 1 else "has"
    data = header.get(DATA)
    once: dict[str, Prediction] = {}
    for one in predictions:
        before = once.setdefault(one.id, one)
        if before is not one and (data is not None or before != one):
            raise EvaluationError(
                f"{where} {has} {one.id!r} twice{'' if data else ', and differing'}: expected it once"
            )
    found = sorted(once.values(), key=lambda one: one.place)
    if data is not None:
        check_whole(found, data, where)
    return header, found, len(predictions) - len(found)


def check_whole(predictions: Sequence[Prediction], data: dict[str, Any], where: str) -> None:
    """Refuse anything but the answers, once each, to all that a header's `data` says was asked.

    Raises:
        EvaluationError: naming what is missing.
    """
    missing = sorted({*range(data["items"])} - {one.place for one in predictions})
    if missing:
        shown = ", ".join(str(place + 1) for place in missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise EvaluationError(
            f"{where} lacks {len(missing):,} of {data['items']:,} answers (number {shown} of the data): give all "
            "parts of the run, or run `flashsloth eval` again, which asks what is missing"
        )
    if data_digest(predictions) != data["digest"]:
        raise EvaluationError(f"{where} holds other questions or truths than its header says: it was changed")


def join_truths(
    predictions: Sequence[Prediction], items: Sequence[Item], where: str, *, some: bool = False
) -> list[Prediction]:
    """Predictions with the truths of data that may be a newer version, joined by their ids.

    Args:
        predictions: all there are.
        items: of the data.
        where: the predictions are from, for errors.
        some: whether the data may have more.

    Raises:
        EvaluationError: where the data lacks an id, has others, or asks something else.
    """
    known = {item.id: item for item in items}
    answered = {one.id for one in predictions}
    foreign = [one.id for one in predictions if one.id not in known]
    missing = [] if some else [item.id for item in items if item.id not in answered]
    for ids, what, count in (
        (foreign, "answers to questions that the data does not have", len(predictions)),
        (missing, "no answers to questions of the data", len(items)),
    ):
        if ids:
            raise EvaluationError(f"{where} has {what}: {len(ids):,} of {count:,}, such as {ids[0]!r}")
    for one in predictions:
        if one.prompt and one.prompt != known[one.id].prompt:
            raise EvaluationError(f"{where} was asked {one.prompt!r}, but the data asks {known[one.id].prompt!r}")
    joined = [(one, known[one.id]) for one in predictions]
    return [replace(one, truth=item.truth, group=item.group, picture=item.picture) for one, item in joined]


def write_predictions(path: Path, header: dict[str, Any], predictions: Iterable[Prediction]) -> None:
    """A whole file, at once or not at all."""
    with whole_file(path) as unfinished, unfinished.open("w", encoding="utf-8", errors=ESCAPED) as file:
        for row in ({"header": {"format": FORMAT, **header}}, *map(asdict, predictions)):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())  # before what it was made of is removed
