"""How many questions about given pictures a model answers right: a file of questions beside the pictures.

In: a YAML file that names pictures, by their paths from its folder, and what is asked about each:

    browser/items-00.png:
    - {kind: color, question: "What color is the circle?", answer: red}

Out: a :class:`PicturesReport`: a row for each kind, and for each folder. Kinds are the world's and whatever else stands
there; without one a question is of the kind `question`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashsloth.evaluation.asking import PictureQuestions, ask_all
from flashsloth.evaluation.scores import READING_ANY_CASE, Score, total_of
from flashsloth.inference import FlashSloth
from flashsloth.world import KINDS, Question
from flashsloth.yaml_file import read_yaml

PLAIN_KIND = "question"
KEYS = {"kind", "question", "answer"}


class QuestionsError(ValueError):
    """A file of questions that cannot be used."""


@dataclass
class PicturesReport:
    """What was found.

    Attributes:
        model: its name.
        questions: the file.
        pictures: how many were shown.
        seconds: how long it took.
        kinds: a row for each kind of question.
        also: rows that count the same questions otherwise: by folder, and what was read without regard to case.
        total: all questions.
    """

    model: str
    questions: str
    pictures: int
    seconds: float
    kinds: list[Score]
    also: list[Score]
    total: Score

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        plain = {name: getattr(self, name) for name in ("model", "questions", "pictures", "seconds")}
        rows = {name: [score.to_dict() for score in getattr(self, name)] for name in ("kinds", "also")}
        return {**plain, **rows, "total": self.total.to_dict()}


def read_questions(file: str | Path) -> list[PictureQuestions]:
    """The pictures of a file of questions, as paths.

    Raises:
        QuestionsError: for a file that is not such a file, or a picture that is not there.
    """
    path = Path(file)
    tree = read_yaml(path, "file of questions", "examples/questions.yaml", QuestionsError)
    if not isinstance(tree, dict) or not tree:
        raise QuestionsError(f"{path} holds a {type(tree).__name__}, expected pictures' paths, each with its questions")
    return [_picture(path, str(name), asked) for name, asked in tree.items()]


def evaluate_pictures(
    sloth: FlashSloth, file: str | Path, *, progress: Callable[[int], None] | None = None
) -> PicturesReport:
    """Ask everything that a file of questions asks.

    Args:
        sloth: the model.
        file: the YAML file.
        progress: called with the number of further pictures that are done.

    Raises:
        QuestionsError: as :func:`read_questions`.
    """
    started = time.perf_counter()
    pictures = read_questions(file)
    tallies = ask_all(sloth, pictures, progress)
    asked = dict.fromkeys(question.kind for picture in pictures for question in picture.questions)
    kinds = tallies.scores([*(kind for kind in KINDS if kind in asked), *(kind for kind in asked if kind not in KINDS)])
    groups = dict.fromkeys(picture.group for picture in pictures if picture.group is not None)
    also = tallies.scores([READING_ANY_CASE, *groups])
    seconds = time.perf_counter() - started
    return PicturesReport(sloth.name, str(file), len(pictures), seconds, kinds, also, total_of(kinds))


def _picture(file: Path, name: str, asked: Any) -> PictureQuestions:
    picture = file.parent / name
    if not picture.is_file():
        raise QuestionsError(f"{file} names {name}, but there is no such picture beside it: expected {picture}")
    if not isinstance(asked, list) or not asked:
        raise QuestionsError(f"{file}: {name} has {asked!r}, expected a list of questions with answers")
    folder = Path(name).parent.as_posix()
    questions = [_question(f"{file}: {name}, question {number}", item) for number, item in enumerate(asked)]
    return PictureQuestions(picture, questions, f"by {folder}" if folder != "." else None)


def _question(where: str, item: Any) -> Question:
    if not isinstance(item, dict) or not {"question", "answer"} <= set(item) <= KEYS:
        raise QuestionsError(f"{where} is {item!r}, expected question: and answer:, and perhaps kind:")
    for key, value in item.items():
        if not isinstance(value, str):
            raise QuestionsError(f"{where}: {key} is {value!r}, expected text: put it in quotation marks")
    return Question(item.get("kind", PLAIN_KIND), item["question"], item["answer"])


__all__ = ["PicturesReport", "QuestionsError", "evaluate_pictures", "read_questions"]
