"""The settings of a benchmark in words: their names, their values, and what to expect where one differs.

In: a name of :class:`TaskSettings`, and values. Out: texts for people, of which the drift report is made.
"""

from __future__ import annotations

from typing import Any

from flashsloth.evaluation.settings import NOT_SET

COMPARED: dict[str, str] = {
    "dataset": "data set",
    "config": "its configuration",
    "split": "its split",
    "style": "wording of a question",
    "before": "prompt before it",
    "after": "prompt after it",
    "after_open": "prompt after an open one",
    "pictures_first": "pictures before the text",
    "max_tokens": "new tokens at most",
    "temperature": "temperature",
    "top_p": "top_p",
    "scorer": "what is right",
    "judge": "judge",
    "metric": "score",
}
"""Settings that change what is asked, answered or counted, as people call them."""
OTHER_PROMPT = "other answers; by how many points is not known before it is tried"
EFFECTS: dict[str, str] = {
    "config": "other questions: figures cannot be compared",
    "split": "other questions: figures cannot be compared",
    "style": OTHER_PROMPT,
    "before": OTHER_PROMPT,
    "after": OTHER_PROMPT,
    "after_open": OTHER_PROMPT,
    "pictures_first": "another benchmark: each picture is seen where the text names it",
    "top_p": "none at temperature 0, else other draws",
    "judge": "two judges grade differently: figures cannot be compared",
    "metric": "another figure of the same answers",
}
SCORER_EFFECTS: dict[str, str] = {
    "begins with the letter": '"B." and "B. text" are right too: the same or higher',
    "letter or equal": "a letter is found in any text, number words and options' texts are not: either way",
    "yes or no somewhere": "an answer without no or not counts as yes, whatever it says: either way",
    "MME's own": '"y" and "n" no longer count: the same or lower',
    "GQA's own": "articles and punctuation within an answer count: the same or lower, nearly always the same",
}
"""By what is right there."""


def in_words(name: str, value: Any) -> str:
    """A setting's value, for people."""
    if value is None or value == "":
        return "none" if name != "style" else "the only one"
    if name == "max_tokens" and isinstance(value, int):
        return f"{value:,}" + (" (not set)" if value == NOT_SET else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in ("before", "after", "after_open"):
        return repr(value)
    if name == "size":
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def effect_of(name: str, published: Any, found: Any) -> str:
    """What to expect of a setting that differs."""
    if name == "dataset":
        is_renamed = str(published).split("/")[-1] == str(found).split("/")[-1]
        return (
            "the owner was renamed; --data shows whether the questions are the same" if is_renamed else EFFECTS["split"]
        )
    if name == "max_tokens":
        if isinstance(found, int) and found > published:
            return "none for short answers; those that were cut there go on here"
        return "none for short answers; longer ones are cut here"
    if name == "temperature":
        return "answers are drawn: another figure with every seed" if found else "no draws: the same figure every time"
    if name == "scorer":
        return SCORER_EFFECTS.get(str(found), "the same answers count otherwise")
    return EFFECTS[name]
