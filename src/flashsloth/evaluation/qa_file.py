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
from typing import Annotated

from pydantic import Field

from flashsloth.errors import FlashSlothError
from flashsloth.evaluation.tallies import READING_ANY_CASE, EvaluationReport, PictureQuestions, ask_all
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.world import KINDS, Question
from flashsloth.yaml_file import Expected, StrictModel, checked, dotted, listed, read_yaml

PLAIN_KIND = "question"


_Text = Annotated[str, Expected("text: put it in quotation marks")]


class _AskedQuestion(StrictModel):
    """One item below a picture."""

    kind: _Text = PLAIN_KIND
    question: _Text
    answer: _Text


class _Asked(StrictModel):
    """What is asked about a picture."""

    questions: list[_AskedQuestion] = Field(min_length=1)


class QuestionsError(FlashSlothError, ValueError):
    """A file of questions that cannot be used."""


@dataclass(kw_only=True)
class PicturesReport(EvaluationReport):
    """What was found by a file of questions; `also` has a row for each folder too."""

    questions: str


def read_questions(file: str | Path) -> list[PictureQuestions]:
    """The pictures of a file of questions, as paths.

    Raises:
        QuestionsError: for a file that is not such a file, or a picture that is not there.
    """
    path = Path(file)
    tree = read_yaml(path, "file of questions", "examples/questions.yaml", QuestionsError)
    if not isinstance(tree, dict) or not tree:
        raise QuestionsError(f"{path} holds a {type(tree).__name__}, expected pictures' paths, each with its questions")
    pictures, mistakes = [], []
    for name, asked in tree.items():
        picture = path.parent / str(name)
        if not picture.is_file():
            mistakes.append(f"names {name}, but there is no such picture beside it: expected {picture}")
        right, wrong = checked(_Asked, {"questions": asked})
        mistakes += [f"{dotted((str(name), *place[1:]))}: {said}" for place, said in wrong]
        if right is not None:
            folder = Path(str(name)).parent.as_posix()
            questions = [Question(one.kind, one.question, one.answer) for one in right.questions]
            pictures.append(PictureQuestions(picture, questions, f"by {folder}" if folder != "." else None))
    if mistakes:
        raise QuestionsError(listed(str(path), mistakes))
    return pictures


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
    return PicturesReport(
        model=sloth.name, pictures=len(pictures), seconds=seconds, kinds=kinds, also=also, questions=str(file)
    )
