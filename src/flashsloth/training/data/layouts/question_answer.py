"""A question and an answer in two fields, beside the picture: tables, VQAv2's rows, problem and answer, Alpaca's.

Of several answers (VQAv2 asks ten people) the one most often given counts, the first of equals. An answer that is a
number is written as one. TRL's prompt and completion may be lists of messages.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from flashsloth.training.data.layouts.fields import Said, list_in, pictures_named, system_turn, text_of
from flashsloth.training.data.layouts.parts import PartsReader
from flashsloth.training.data.layouts.turns import said_in
from flashsloth.training.data.sample import BadSampleError

QUESTIONS = ("question", "problem", "query", "instruction", "prompt")
ANSWERS = ("answer", "multiple_choice_answer", "answers", "solution", "response", "completion", "output", "label")
BESIDE = "input"
"""Alpaca's: what the instruction is about."""
NOT_LAID_OUT = ("choices", "options", "history")
"""Fields without which the question is another one."""
FIELDS = (*QUESTIONS, *ANSWERS, BESIDE, *NOT_LAID_OUT)


def holds(record: dict[str, Any]) -> bool:
    """Whether a record is of this layout."""
    return _first(record, QUESTIONS) is not None and _first(record, ANSWERS) is not None


def read(record: dict[str, Any]) -> Said:
    """Its turns and pictures."""
    asked, answered = str(_first(record, QUESTIONS)), str(_first(record, ANSWERS))
    name = f"{asked} and {answered}"
    for field in NOT_LAID_OUT:
        if record.get(field):
            raise BadSampleError(f"has {field} beside its {asked}: write them into the {asked}, or as messages")
    if isinstance(record[asked], (list, tuple)):
        return _messages(record, name, asked, answered)
    question = text_of(record[asked], asked)
    if not question.strip():
        raise BadSampleError(f"has an empty {asked}")
    if record.get(BESIDE) and asked == "instruction":
        question = f"{question}\n{text_of(record[BESIDE], BESIDE)}"
    said = [*system_turn(record), ("user", question), ("assistant", _answer(record[answered], answered))]
    return name, said, pictures_named(record)


def _messages(record: dict[str, Any], name: str, asked: str, answered: str) -> Said:
    """TRL's conversational prompt and completion."""
    said = said_in(list_in(record, asked, "messages"))
    answer = record[answered]
    said += [("assistant", answer)] if isinstance(answer, str) else said_in(list_in(record, answered, "messages"))
    reader = PartsReader(pictures_named(record))
    turns = [(role, reader.content(content, place)) for place, (role, content) in enumerate(said)]
    return f"{name}, of messages", turns, reader.pictures()


def _first(record: dict[str, Any], fields: tuple[str, ...]) -> str | None:
    """The first of the fields that holds something; an empty answer counts, as there may be a question without one."""
    return next((field for field in fields if record.get(field) is not None), None)


def _answer(value: Any, field: str) -> str:
    if isinstance(value, dict) and isinstance(value.get("answer"), str):
        return value["answer"]
    if isinstance(value, (list, tuple)):
        if not value or any(isinstance(one, (list, tuple)) for one in value):
            raise BadSampleError(f"{field} is {'a list of lists' if value else 'empty'}, expected an answer")
        return Counter(_answer(one, field) for one in value).most_common(1)[0][0]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    return text_of(value, field)
