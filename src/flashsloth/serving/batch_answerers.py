"""Who answers the lines of a batch in this process: one FlashSloth, through its engine.

In: lines, read as they are needed. Out: each line and what is written down for it, as answers get done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flashsloth.evaluation.answerer import FlashSlothAnswerer
from flashsloth.inference.answer import Answer
from flashsloth.inference.options import AnswerOptions, Options
from flashsloth.inference.picture_resolution import check_resolution
from flashsloth.serving.batch import FAILED, Answered, failed_row
from flashsloth.serving.batch_lines import BatchLine, BatchSource


class SimpleAnswerer:
    """Answers lines of one picture and question each, through `FlashSloth.answer_as_ready`.

    Args:
        model: who answers.
        source: whose lines they are.
        options: of all answers.
    """

    def __init__(self, model: FlashSlothAnswerer, source: BatchSource, options: AnswerOptions) -> None:
        self._model, self._source = model, source
        self._options: AnswerOptions = {**options, "details": True}
        check_resolution(Options.of(self._options).resolution, model.sloth.model.config)

    def describe(self) -> dict[str, Any]:
        """See :class:`Answerer`."""
        model = self._model.describe()
        del model["name"]  # of a folder, which may move
        return {**model, "options": dict(self._options)}

    def answers(self, lines: Iterator[BatchLine]) -> Iterator[Answered]:
        """See :class:`Answerer`."""
        asked: dict[int, BatchLine] = {}

        def pairs() -> Iterator[tuple[Any, str]]:
            for place, line in enumerate(lines):
                asked[place] = line
                yield self._source.picture(line), line.asked["question"]

        for place, answer in self._model.sloth.answer_as_ready(pairs(), on_error="return", **self._options):
            line = asked.pop(place)
            if isinstance(answer, Exception):
                yield line, failed_row(line, self._source, FAILED, str(answer))
            else:
                yield line, {"id": line.id, **self._source.shown(line), **_described(answer), "error": None}


def _described(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = {
        "answer": answer.text,
        "finish_reason": str(answer.finish_reason),
        "tokens": len(answer.tokens),
    }
    for name in ("seed", "resolution", "confidence"):
        if getattr(answer, name) is not None:
            told[name] = getattr(answer, name)
    return {**told, "choices": answer.choices} if answer.choices else told
