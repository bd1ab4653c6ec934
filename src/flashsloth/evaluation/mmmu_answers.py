"""What an answer to a question of MMMU says: which option, or which numbers and texts.

The rules are MMMU's own (github.com/MMMU-Benchmark/MMMU, eval_utils.py): as lmms-eval has them, in both versions, and
as they were in 2023, when a letter had to stand between spaces. Where they find no option, the publishers draw one;
here that is None, and the task draws.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MARKS = ",.!?;:'"
"""Stripped from an answer's ends, one after the other."""
Forms = Sequence[tuple[str, str]]
FORMS_TODAY: Forms = (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} "))
"""What shows that a letter is an answer, tried in turn, and what says which of several is the last."""
FORMS_OF_2023: Forms = (("({})", "({})"), (" {} ", " {} "))
FEWEST_WORDS = 6
"""Of an answer in which options are looked for by their texts."""
SENTENCE_END = re.compile(r"\.\s(?=[A-Z])|\n")
INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
"""What an answer follows."""
EQUATION = "="
"""The same, in the last sentence."""
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
"""With thousands' commas, with an exponent, plain."""
DECIMALS = 2


def chosen_letter(answer: str, options: Sequence[str], forms: Forms = FORMS_TODAY) -> str | None:
    """The letter of the option that an answer names: by the letter, or in a longer answer by its text; the last one."""
    by_letter = {chr(ord("A") + place): option for place, option in enumerate(options)}
    for mark in MARKS:
        answer = answer.strip(mark)
    text = f" {answer} "
    for form, last in forms:
        if found := [letter for letter in by_letter if form.format(letter) in text]:
            return max(found, key=lambda letter: text.rfind(last.format(letter)))
    lower = text.lower()
    found = [letter for letter, option in by_letter.items() if option.lower() in lower]
    if found and len(text.split()) >= FEWEST_WORDS:
        return max(found, key=lambda letter: lower.rfind(by_letter[letter].lower()))
    return None


def open_answers(answer: str) -> list[str | float]:
    """The texts and numbers that an answer without options may mean."""
    text = answer.strip().strip(".").lower()
    sentences = SENTENCE_END.split(text)
    ends = []
    for number, sentence in enumerate(sentences, 1):
        indicators = (*INDICATORS, EQUATION) if number == len(sentences) else INDICATORS
        shortest = ""
        for end in (sentence.split(one)[-1].strip() for one in indicators if one in sentence):
            if not shortest or len(end) < len(shortest):
                shortest = end
        if shortest and shortest not in MARKS:
            ends.append(shortest)
    ends = ends or [text]
    numbers = [number for end in ends for form in NUMBERS for number in form.findall(end)]
    return [one for found in (*ends, *numbers) for one in comparable(found)]


def comparable(text: str) -> list[str | float]:
    """A number to two places; or a text in lower case, a single letter only as a word's beginning or end."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), DECIMALS)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def is_open_right(answer: str, truths: Sequence[str]) -> bool:
    """Whether an answer means a truth: has its text in it, or the same number."""
    known = [one for truth in truths for one in comparable(truth)]
    texts = [one for one in known if isinstance(one, str)]
    return any(
        any(truth in said for truth in texts) if isinstance(said, str) else said in known
        for said in open_answers(answer)
    )
