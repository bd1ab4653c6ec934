"""What an answer to a question of MathVista says, and whether it is right.

In: an answer, or what a judge extracted of it. Out: an extraction, and what is compared with the truth. The rules are
MathVista's own (github.com/lupantech/MathVista, evaluation/) as lmms-eval has them. Two versions of one are known:
today "5.0" is the whole number 5, for the scores published in 2023 it was none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from flashsloth.evaluation.edit_distance import edit_distance

QUOTED = re.compile(r'The answer is "(.*)"\.')
BARE_LETTER = re.compile(r"\(?([A-Z])\)?[.:]?")
LETTER = re.compile(r"\(([a-zA-Z])\)")
CHOICE, INTEGER, FLOAT = "multi_choice", "integer", "float"


def today(text: str) -> str:
    """A whole number, also one that is written with a point; what stands behind it does not count."""
    return str(int(float(text)))


def of_2023(text: str) -> str:
    """A whole number that is written as one."""
    return str(int(text))


def stated_answer(answer: str, truth: Mapping[str, Any]) -> str | None:
    """What rules can extract of an answer; None where a judge is needed.

    A letter that stands alone is its own extraction here; lmms-eval asks the judge.
    """
    answer = answer.strip()
    if not answer:
        return ""
    if truth["question_type"] == CHOICE:
        if answer in truth["choices"]:
            return answer
        bare = BARE_LETTER.fullmatch(answer)
        if bare and ord(bare[1]) - ord("A") < len(truth["choices"]):
            return bare[1]
    for kind, number in ((INTEGER, int), (FLOAT, float)):
        if truth["answer_type"] == kind:
            try:
                return str(number(answer))
            except ValueError:
                pass
    quoted = QUOTED.search(answer)
    return quoted[1] if quoted else None


def comparable(extraction: str, truth: Mapping[str, Any], whole: Callable[[str], str] = today) -> str | None:
    """An extraction as the truth is written: an option's text, a number with its places; None where it is none."""
    if truth["question_type"] == CHOICE:
        return _option(extraction.strip(), truth["choices"])
    try:
        if truth["answer_type"] == INTEGER:
            return whole(extraction)
        if truth["answer_type"] == FLOAT:
            return str(round(float(extraction), int(truth["precision"])))
    except (ValueError, OverflowError):
        return None
    return extraction


def _option(extraction: str, choices: list[str]) -> str:
    """An option's text: by its letter, or the one that is nearest."""
    letter = LETTER.search(extraction)
    name = letter[1].upper() if letter else extraction
    if len(name) == 1 and 0 <= ord(name) - ord("A") < len(choices):
        return choices[ord(name) - ord("A")]
    return min(choices, key=lambda choice: edit_distance(name, choice))
