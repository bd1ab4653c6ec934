"""AI2D: 3,088 questions about diagrams of a school's science books, with four options.

Kembhavi et al., "A Diagram Is Worth a Dozen Images" (2016). The hub's files have no ids: an item is its place in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import no_data, parquet_files, parquet_rows, picture_digest, texts, value_of
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, Task, only, share
from flashsloth.evaluation.text_answers import bare_text

COLUMNS = ("question", "options", "answer")
LETTER_AND_DOT = re.compile(r"\s*([A-Z])\.")


class Ai2d(Task):
    """See the module."""

    files = ""
    columns = (*COLUMNS, "image")
    truths = (("answer", str),)
    scorers = ("letter and a dot",)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        files = parquet_files(folder, self.columns, self.settings.split)
        if not files:
            raise no_data(self, folder)
        for place, (row, pictures) in enumerate(parquet_rows(files, ["image"], COLUMNS)):
            yield self._item(str(place), row, pictures["image"], folder)

    def _item(self, name: str, row: dict[str, Any], picture: Picture, where: Path) -> Item:
        question, answer = texts(row, ("question", "answer"), where)
        letters = {chr(ord("A") + place): text for place, text in enumerate(value_of(row, "options", list, where))}
        if answer not in map(str, range(len(letters))):
            raise EvaluationError(f"{where}: question {name} has answer {answer!r}, expected 0 to {len(letters) - 1}")
        asked = "\n".join([question, *(f"{letter}. {text}" for letter, text in letters.items())])
        prompt = f"{self.settings.before}{asked}{self.settings.after}"
        return Item(name, prompt, (picture,), {"answer": list(letters)[int(answer)]}, name, picture_digest(picture))

    def score(self, group: Sequence[Prediction]) -> Scored:
        """A letter with a dot at an answer's beginning counts; else the whole answer must be the letter."""
        one = only(group)
        found = LETTER_AND_DOT.match(one.answer)
        said = found[1] if found else one.answer
        is_right = bare_text(said) == bare_text(one.truth["answer"])
        return Scored((one,), {"right": float(is_right), "asked": 1.0}, float(is_right), said=said)

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent."""
        return {"accuracy": share(sums["right"], sums["asked"])}
