"""Answers as they are alone: what every answer of a busy server is compared with.

In: questions. Out: the text that the model in this process gives, with nothing beside it.
"""

from __future__ import annotations

import io

from PIL import Image

from flashsloth.benchmark.serving.load import End
from flashsloth.benchmark.serving.questions import NOTHING, Question, picture_bytes
from flashsloth.inference.pipeline import FlashSloth


class SoloAnswers:
    """Answers one at a time, and remembers them.

    Args:
        sloth: the model, in float32.
    """

    def __init__(self, sloth: FlashSloth) -> None:
        self.sloth = sloth
        self._pictures: dict[int, Image.Image] = {}
        self._known: dict[Question, str] = {}

    def picture(self, number: int) -> Image.Image | None:
        """The picture of a question, opened once."""
        if number == NOTHING:
            return None
        if number not in self._pictures:
            opened = Image.open(io.BytesIO(picture_bytes(number)))
            opened.load()
            self._pictures[number] = opened
        return self._pictures[number]

    def answer(self, question: Question) -> str:
        """The answer to a question, alone."""
        if question not in self._known:
            picture = self.picture(question.picture)
            self._known[question] = str(self.sloth.answer(picture, question.text, max_tokens=question.tokens))
        return self._known[question]

    def wrong(self, end: End, question: Question) -> str | None:
        """What is wrong with how a request about it ended, if anything is."""
        if end.wrong is not None:
            return f"{question}: {end.wrong}"
        alone = self.answer(question)
        if end.answer.text == alone:
            return None
        return f"{question}: {end.answer.text!r} among others, {alone!r} alone"
