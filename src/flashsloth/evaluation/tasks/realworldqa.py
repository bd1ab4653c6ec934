"""RealWorldQA: 765 photographs, mostly out of cars, with a question each; options, numbers and single words.

xAI, "Grok-1.5 Vision Preview" (2024). The hub's files have no ids: an item is its place in them. Options stand in the
question's own text. The published copy of lmms-eval looks for an option's text anywhere, also in a longer word;
lmms-eval 0.7.3 looks for a letter where the truth is one, and compares everything else whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import no_data, parquet_files, parquet_rows, texts
from flashsloth.evaluation.item import Item, Prediction, Scored
from flashsloth.evaluation.option_letter import option_letter
from flashsloth.evaluation.task import Task, only, share
from flashsloth.evaluation.text_answers import NUMBERS, bare_text

COLUMNS = ("question", "answer")
OPTION = re.compile(r"\b[A-Z]\.\s+([^\n]*)")
NOT_IN_WORDS = re.compile(r"[^\w\s]")
LETTERS = "ABCD"
NOT_A_DIGIT = "none"
"""The one word that VQA takes for a number and this scorer does not."""


def names_option(answer: str, truth: str, options: Sequence[str]) -> tuple[str, bool]:
    """(what was understood, whether it is right) by number words and options' texts."""
    said = answer if answer.lower() == NOT_A_DIGIT else NUMBERS.get(answer.lower(), answer)
    said = NOT_IN_WORDS.sub("", said).strip()
    letters = {text: chr(ord("A") + place) for place, text in enumerate(options)}
    found = re.search("|".join(map(re.escape, options)), said)
    said = letters.get(found.group(), said) if found else said
    return said, bare_text(said) == bare_text(truth)


def is_letter_or_equal(answer: str, truth: str, options: Sequence[str]) -> tuple[str, bool]:
    """(what was understood, whether it is right) by a letter, where the truth is one."""
    del options
    truth = truth.strip()
    if len(truth) == 1 and truth.upper() in LETTERS:
        said = option_letter(answer, LETTERS)
        return said, said == truth.upper()
    said = answer.lower().strip().rstrip(".")
    return said, said == truth.lower()


RULES: dict[str, Callable[[str, str, Sequence[str]], tuple[str, bool]]] = {
    "number words and option texts": names_option,
    "letter or equal": is_letter_or_equal,
}


class RealWorldQa(Task):
    """See the module."""

    files = ""
    columns = (*COLUMNS, "image")
    truths = (("answer", str), ("options", list))
    scorers = tuple(RULES)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        files = parquet_files(folder, self.columns, self.settings.split)
        if not files:
            raise no_data(self, folder)
        for place, (row, pictures) in enumerate(parquet_rows(files, ["image"], COLUMNS)):
            question, answer = texts(row, COLUMNS, folder)
            prompt = f"{self.settings.before}{question.strip()}{self.settings.after}"
            truth = {"answer": answer, "options": [text.strip() for text in OPTION.findall(question)]}
            name = str(place)
            yield Item(name, prompt, (pictures["image"],), truth, name, name)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :data:`RULES`."""
        one = only(group)
        said, is_right = RULES[self.settings.scorer](one.answer, one.truth["answer"], [*map(str, one.truth["options"])])
        return Scored((one,), {"right": float(is_right), "asked": 1.0}, float(is_right), said=said)

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent."""
        return {"exact_match": share(sums["right"], sums["asked"])}
