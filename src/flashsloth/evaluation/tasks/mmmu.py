"""MMMU: 900 questions of 30 college subjects, about up to seven pictures each; options, or an answer of one's own.

Yue et al., "MMMU: A Massive Multi-discipline Multimodal Understanding and Reasoning Benchmark for Expert AGI" (2024);
its validation split. Where an answer names no option one is drawn, as the publishers do, in their order and with their
seed; `drawn` is how many. In 2024 they changed how a letter is found, and corrected two truths: `scorer` is of which
time.

Presets paper and lmms-0.7.3 have one prompt, but show pictures otherwise: all first, the text with `<image 1>` as it
stands; or each in the place of a mark. lmms-eval 0.7.3 fills the marks in the pictures' order, whatever their numbers,
and drops what stands between marks beyond the last picture: as there, so here.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import no_data, parquet_files, parquet_rows, texts
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.mmmu_answers import FORMS_OF_2023, FORMS_TODAY, Forms, chosen_letter, is_open_right
from flashsloth.evaluation.task import EvaluationError, Task, only, share

MARK = re.compile(r"<image ([1-7])>")
PICTURES = tuple(f"image_{number}" for number in range(1, 8))
COLUMNS = ("id", "question", "options", "answer", "question_type")
CHOICE = "multiple-choice"
KEY_OF_2023 = {"validation_Literature_10": "D", "validation_Literature_15": "B"}
"""Truths that are others today."""
RULES: dict[str, tuple[Forms, Mapping[str, str]]] = {
    "MMMU's parser": (FORMS_TODAY, {}),
    "MMMU's parser of 2023": (FORMS_OF_2023, {}),
    "MMMU's parser and key of 2023": (FORMS_OF_2023, KEY_OF_2023),
}
SEED = 42
PLACE = re.compile(r"(?P<split>[^_]+)_(?P<subject>.+)_(?P<number>\d+)")


class Mmmu(Task):
    """See the module."""

    files = ""
    columns = (*COLUMNS, *PICTURES)
    truths = (("answer", list), ("options", list))
    scorers = tuple(RULES)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        files = parquet_files(folder, self.columns, self.settings.split)
        found = False
        for row, pictures in parquet_rows(files, PICTURES, COLUMNS):
            if isinstance(row["id"], str) and row["id"].startswith(f"{self.settings.split}_"):
                found = True
                yield self._item(row, pictures, folder)
        if not found:
            raise no_data(self, folder)

    def _item(self, row: dict[str, Any], pictures: Mapping[str, Picture], where: Path) -> Item:
        name, question, answer, kind = texts(row, ("id", "question", "answer", "question_type"), where)
        if not PLACE.fullmatch(name):
            raise EvaluationError(f"{where}: id is {name!r}, expected one such as validation_Art_1")
        options = _listed(row["options"], f"{where}: options of {name}") if kind == CHOICE else []
        asked = "\n".join([question, *(f"{chr(ord('A') + place)}. {text}" for place, text in enumerate(options))])
        after = self.settings.after if kind == CHOICE else self.settings.after_open
        prompt = f"{self.settings.before}{asked}{after}"
        shown = sorted({f"image_{number}" for number in MARK.findall(asked)})
        if missing := [column for column in shown if column not in pictures]:
            raise EvaluationError(f"{where}: question {name} shows {', '.join(missing)}, which its row does not have")
        truth = {"answer": _truths(answer, name, where), "options": options}
        parts = () if self.settings.pictures_first else in_place(prompt, len(shown))
        return Item(name, prompt, tuple(pictures[column] for column in shown), truth, name, name, parts)

    def score_all(self, groups: Sequence[Sequence[Prediction]]) -> list[Scored]:
        """Draws come in the publishers' order, whatever order answers are in."""
        forms, key = RULES[self.settings.scorer]
        generator = random.Random(SEED)
        scored = {}
        for one in sorted(map(only, groups), key=_publishers_place):
            options = [*map(str, one.truth["options"])]
            truths = [key[one.id]] if one.id in key else [*map(str, one.truth["answer"])]
            if not options:
                scored[one.id] = _scored(one, one.answer, is_open_right(one.answer, truths))
            elif letter := chosen_letter(one.answer, options, forms):
                scored[one.id] = _scored(one, letter, letter in truths)
            else:
                letter = generator.choice([chr(ord("A") + place) for place in range(len(options))])
                scored[one.id] = _scored(one, f"{letter}, drawn", letter in truths, is_drawn=True)
        return [scored[only(group).id] for group in groups]

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :class:`Task`; of one answer alone, the first draw."""
        [scored] = self.score_all([group])
        return scored

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent: of right answers, and of those that were drawn."""
        return {"accuracy": share(sums["right"], sums["asked"]), "drawn": share(sums["drawn"], sums["asked"])}


def _scored(one: Prediction, said: str, is_right: bool, is_drawn: bool = False) -> Scored:
    counts = {"right": float(is_right), "drawn": float(is_drawn), "asked": 1.0}
    return Scored((one,), counts, float(is_right), said=said)


def in_place(prompt: str, pictures: int) -> tuple[str | None, ...]:
    """A prompt's texts, None where a picture stands between them."""
    *before, last = [text.strip() for text in MARK.split(prompt)[::2]]
    parts: list[str | None] = []
    for place in range(pictures):
        if place < len(before) and before[place]:
            parts.append(before[place])
        parts.append(None)
    return (*parts, last)


def _listed(text: Any, where: str) -> list[str]:
    """The hub's options: a list of Python's, written as a text."""
    try:
        found = ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise EvaluationError(f"{where} are {text!r:.80}, expected a list of texts") from error
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise EvaluationError(f"{where} are {text!r:.80}, expected a list of texts")
    return found


def _truths(answer: str, name: str, where: Path) -> list[str]:
    """One, or several that the hub writes as options are written."""
    return _listed(answer, f"{where}: answers of {name}") if answer.startswith("[") else [answer]


def _publishers_place(one: Prediction) -> tuple[str, int]:
    found = PLACE.fullmatch(one.id)
    if found is None:
        raise EvaluationError(f"an answer's id is {one.id!r}, expected one such as validation_Art_1")
    return found["subject"], int(found["number"])
