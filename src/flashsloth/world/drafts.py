"""A question before it is final: with the wrong answers that a choice could offer.

In: what one of the `ask_...` functions found. Out: a record that `questions` turns into a `Question`.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Draft:
    """A question of some kind, its true answer, and plausible wrong ones (none where a choice makes no sense)."""

    kind: str
    question: str
    answer: str
    wrong: list[str] = field(default_factory=list)
