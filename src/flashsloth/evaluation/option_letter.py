"""The letter of an option, as lmms-eval 0.7.3 finds it in free text (`_task_utils/mcq_extract.py`).

Every way in which a letter may stand for an answer is looked for; the surest way counts, and of two places of one way
the later.
"""

from __future__ import annotations

MARKS = ",.!?;:'\""
"""Stripped from an answer's ends, one after the other."""
AT_START, AT_END, AFTER_PHRASE, ANYWHERE = 10, 9, 7, 0
FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
"""How a letter may stand, and how sure that is."""
PHRASES = (
    "answer is", "the answer is", "correct answer is", "the correct answer is", "best answer is", "the best answer is",
    "correct option is", "the correct option is", "best option is", "the best option is", "choice is", "the choice is",
    "correct choice is", "the correct choice is", "i choose", "i select", "i pick", "my answer is", "my choice is",
)  # fmt: skip
"""What a letter follows; the English ones."""


def option_letter(answer: str, letters: str) -> str:
    """One of `letters`; "" where none is there."""
    core = answer.strip()
    for mark in MARKS:
        core = core.strip(mark)
    text = f" {core} "
    core = core.strip()
    found = [
        (surety, text.rfind(form.format(one)), one)
        for form, surety in FORMS
        for one in letters
        if form.format(one) in text
    ]
    lower = text.lower()
    for phrase in PHRASES:
        if phrase in lower:
            after = lower.find(phrase) + len(phrase)
            found += [(AFTER_PHRASE, text.find(one, after), one) for one in letters if text.find(one, after) >= 0]
    found += [(AT_START, 0, one) for one in letters if core.startswith(one) and not core[1:2].isalpha()]
    found += [(AT_END, len(text), one) for one in letters if core.endswith(one) and not core[-2:-1].isalpha()]
    found = found or [(ANYWHERE, text.rfind(one), one) for one in letters if one in text]
    return max(found)[2] if found else ""
