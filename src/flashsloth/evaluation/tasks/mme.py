"""MME: 14 categories of pictures, each with one question that is right and one that is wrong.

Fu et al., "MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models" (2023). A category's score
is the percentage of right answers and of pictures whose two answers are both right, added: 200 at most. Perception and
cognition are their categories' sums; which of them the paper means by 1702 it does not say, probably both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import find_file, find_picture, no_data, parquet_files, parquet_rows, texts
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, Task, known, share

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
PAIR = 2
"""Questions about a picture."""
PICTURES, QUESTIONS = "images", "questions_answers_YN"
"""Folders that some categories have inside them."""
REQUEST = "Please answer yes or no."
YES, NO, OTHER = "yes", "no", "other"
BEGINNING = 4
"""Characters of an answer that are looked at."""


def in_four_characters(answer: str) -> str:
    """lmms-eval: without full stops, and "y" and "n" count."""
    text = answer.lower().strip().replace(".", "")
    return {"y": YES, "n": NO}.get(text, begins_with(text))


def begins_with(answer: str) -> str:
    """MME's own script: yes or no anywhere in the first four characters."""
    beginning = answer.strip().lower()[:BEGINNING]
    return YES if YES in beginning else NO if NO in beginning else OTHER


RULES: dict[str, Callable[[str], str]] = {"yes or no in four characters": in_four_characters, "MME's own": begins_with}
STYLES: dict[str, Callable[[str], str]] = {
    "as stored": lambda question: question.strip().replace(f" {REQUEST}", ""),
    "stripped": lambda question: question.replace(REQUEST, "").strip(),
}
"""The request that every question ends with gives way to the prompt's own; some have two blanks before it."""


class Mme(Task):
    """See the module."""

    files = f"a folder each of {', '.join(PERCEPTION + COGNITION)}, with pictures and a .txt of two lines beside each"
    columns = ("question_id", "question", "answer", "category", "image")
    truths = (("category", str), ("answer", str))
    scorers = tuple(RULES)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        own = {category: find_file(folder, category) for category in PERCEPTION + COGNITION}
        if any(own.values()):
            for category, path in own.items():
                if path is None:
                    raise EvaluationError(f"{folder} has no folder {category}, expected all 14 categories of MME")
                yield from self._category(category, path)
        elif files := parquet_files(folder, self.columns, self.settings.split, self.settings.config):
            for row, pictures in parquet_rows(files, ["image"], self.columns):
                keys = ("category", "question_id", "question", "answer")
                category, name, question, answer = texts(row, keys, folder)
                yield self._item(category, Path(name).stem, question, answer, pictures["image"], folder)
        else:
            raise no_data(self, folder)

    def _category(self, category: str, path: Path) -> Iterator[Item]:
        pictures = path / PICTURES if (path / PICTURES).is_dir() else path
        questions = path / QUESTIONS if (path / QUESTIONS).is_dir() else path
        files = sorted(questions.glob("*.txt"))
        if not files:
            raise EvaluationError(f"{questions} has no .txt, expected one beside each picture")
        for file in files:
            picture = find_picture(pictures, file.stem)
            for question, answer in read_pair(file):
                yield self._item(category, file.stem, question, answer, picture, file)

    def _item(self, category: str, name: str, question: str, answer: str, picture: Picture, where: Path) -> Item:
        answer = answer.lower().strip().replace(".", "")
        if category not in PERCEPTION + COGNITION or answer not in (YES, NO):
            raise EvaluationError(f"{where}: category {category!r} and answer {answer!r}, expected one of MME's")
        shown = f"{category}/{name}"
        asked = question.replace(REQUEST, "").strip()
        prompt = f"{self.settings.before}{STYLES[self.settings.style](question)}{self.settings.after}"
        truth = {"category": category, "answer": answer}
        return Item(f"{shown}/{asked}", prompt, (picture,), truth, shown, shown)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :class:`Task`."""
        if len(group) != PAIR:
            raise EvaluationError(f"{group[0].group} has {len(group)} answers, expected {PAIR}: MME counts pairs")
        said = [RULES[self.settings.scorer](one.answer) for one in group]
        right = sum(known(one, "answer", (YES, NO)) == what for one, what in zip(group, said, strict=True))
        both = float(right == PAIR)
        numbers = {"right": float(right), "asked": float(PAIR), "both": both, "pairs": 1.0}
        category = known(group[0], "category", PERCEPTION + COGNITION)
        counts = {f"{category}: {name}": number for name, number in numbers.items()}
        return Scored(tuple(group), counts, (right / PAIR + both) / 2, said=", ".join(said))

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Points: 2,000 of perception, 800 of cognition at most."""
        points = {
            one: share(sums[f"{one}: right"], sums[f"{one}: asked"])
            + share(sums[f"{one}: both"], sums[f"{one}: pairs"])
            for one in PERCEPTION + COGNITION
        }
        perception = sum(points[one] for one in PERCEPTION)
        cognition = sum(points[one] for one in COGNITION)
        return {"total": perception + cognition, "perception": perception, "cognition": cognition, **points}


def read_pair(path: Path) -> list[list[str]]:
    """(question, answer) of each line of a picture's file.

    Raises:
        EvaluationError: unless it is two lines, each with one tab.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}): download it again") from error
    pairs = [line.split("\t") for line in lines if line.strip()]
    if [len(one) for one in pairs] != [2, 2]:
        raise EvaluationError(f"{path} is not two lines of a question, a tab and an answer: download it again")
    return pairs
