"""ChartQA: 2,500 questions about charts, half of them asked by people, half by a program.

Masry et al., "ChartQA: A Benchmark for Question Answering about Charts with Visual and Logical Reasoning" (2022); its
test split. The files have no ids: an item is its half, and its place there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import (
    find_file,
    find_picture,
    no_data,
    parquet_files,
    parquet_rows,
    picture_digest,
    read_json_file,
    rows_with,
    texts,
)
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, Task, only, share

HALVES = ("human", "augmented")
COLUMNS = ("type", "question", "answer")
TOLERANCE = 0.05
"""Of a number, as a share of it."""


def is_relaxed_right(answer: str, truth: str) -> bool:
    """Numbers within 5 %, anything else but for its case; a truth of 0 is compared as a text.

    "14%" is 0.14, so that "14" is wrong for it. Years are numbers: 2018 is right for 2010.
    """
    said, known = _number(answer), _number(truth)
    if said is not None and known:
        return abs(said - known) / abs(known) <= TOLERANCE
    return answer.lower() == truth.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


class ChartQa(Task):
    """See the module."""

    files = "test/test_human.json and test/test_augmented.json beside test/png/"
    columns = (*COLUMNS, "image")
    truths = (("answer", str), ("half", str))
    scorers = ("relaxed, 5 %",)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        own = {half: find_file(folder, f"test_{half}.json") for half in HALVES}
        if any(own.values()):
            for half, path in own.items():
                if path is None:
                    raise EvaluationError(f"{folder} has no test_{half}.json, expected it beside the other")
                for place, row in enumerate(rows_with(read_json_file(path), ("imgname", "query", "label"), path)):
                    shown, question, answer = texts(row, ("imgname", "query", "label"), path)
                    picture = find_picture(path.parent / "png", shown)
                    yield self._item(f"{half}/{place}", half, question, answer, picture)
        elif files := parquet_files(folder, self.columns, self.settings.split):
            places: Counter[str] = Counter()
            for row, pictures in parquet_rows(files, ["image"], COLUMNS):
                kind, question, answer = texts(row, COLUMNS, folder)
                half = kind.removesuffix("_test")
                if half not in HALVES:
                    raise EvaluationError(f"{folder}: type is {kind!r}, expected human_test or augmented_test")
                yield self._item(f"{half}/{places[half]}", half, question, answer, pictures["image"])
                places[half] += 1
        else:
            raise no_data(self, folder)

    def _item(self, name: str, half: str, question: str, answer: str, picture: Picture) -> Item:
        prompt = f"{self.settings.before}{question}{self.settings.after}"
        return Item(name, prompt, (picture,), {"answer": answer, "half": half}, name, picture_digest(picture))

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :func:`is_relaxed_right`."""
        one = only(group)
        is_right = is_relaxed_right(one.answer, one.truth["answer"])
        half = one.truth["half"]
        return Scored((one,), {f"{half}, right": float(is_right), f"{half}, asked": 1.0}, float(is_right))

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent, of all and of each half."""
        right = {half: sums[f"{half}, right"] for half in HALVES}
        asked = {half: sums[f"{half}, asked"] for half in HALVES}
        relaxed = share(sum(right.values()), sum(asked.values()))
        return {"relaxed": relaxed, **{half: share(right[half], asked[half]) for half in HALVES}}
