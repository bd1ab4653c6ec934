"""Asks a model all questions of many pictures, as fast as it can, and counts the right answers.

In: a loaded model and pictures with their questions. Out: :class:`Tallies`, a row for each kind, and further rows where
a picture asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flashsloth.evaluation.scores import READING, Tallies
from flashsloth.inference import FlashSloth
from flashsloth.world import Question

MAX_TOKENS = 32
"""Longer than any true answer."""


@dataclass(frozen=True)
class PictureQuestions:
    """A picture with what is asked about it.

    Attributes:
        image: whatever the model takes for a picture.
        questions: with their true answers; one at least.
        group: a further row in which its questions are counted, such as who drew it; None for none.
    """

    image: Any
    questions: Sequence[Question]
    group: str | None = None


def ask_all(
    sloth: FlashSloth, pictures: Iterable[PictureQuestions], progress: Callable[[int], None] | None = None
) -> Tallies:
    """Ask every question of every picture; pictures are taken as they are needed.

    Args:
        sloth: the model.
        pictures: what to ask.
        progress: called with the number of further pictures that are done.
    """
    asked: list[tuple[PictureQuestions, Question]] = []  # grows as the pairs are read
    left: dict[int, int] = {}
    tallies = Tallies()

    def pairs() -> Iterator[tuple[Any, str]]:
        for picture in pictures:
            left[id(picture)] = len(picture.questions)
            for question in picture.questions:
                asked.append((picture, question))
                yield picture.image, question.question

    for place, answer in sloth.answer_as_ready(pairs(), max_tokens=MAX_TOKENS):
        picture, question = asked[place]
        tallies.add(question.kind, question, answer)
        if question.kind == READING:
            tallies.add_any_case(question, answer)
        if picture.group is not None:
            tallies.add(picture.group, question, answer)
        left[id(picture)] -= 1
        if progress is not None and not left[id(picture)]:
            progress(1)
    return tallies


__all__ = ["MAX_TOKENS", "PictureQuestions", "ask_all"]
