"""One sample as the model will meet it: which tokens are learned, which are pictures, questions, queries.

In: an encoded row. Out: its runs of tokens that are treated alike, with their text. Nothing is simplified: a token that
is two things at once is a run of its own, so a wrong mask is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN
from flashsloth.model.processing_flashsloth import IGNORED_LABEL, FlashSlothProcessor
from flashsloth.training.packing import Row

PROMPT, SUPERVISED, PICTURE, QUESTION, QUERIES = "prompt", "supervised", "picture", "question", "queries"
MEANINGS = {
    PROMPT: "read, not learned",
    PICTURE: "visual tokens",
    QUESTION: "what the queries of its turn read",
    QUERIES: "query tokens of a turn",
    SUPERVISED: "learned: the loss stands here",
}
"""What tokens can be -> the same in words, in the order of a legend."""


@dataclass(frozen=True)
class Run:
    """Tokens that stand together and are treated alike.

    Attributes:
        start, stop: positions, the last one not included.
        roles: keys of :data:`MEANINGS`; more than one is a mistake in a mask.
        numbers: which picture and which turn, 0 where there is none.
        text: the tokens' text; of placeholders, nothing.
    """

    start: int
    stop: int
    roles: tuple[str, ...]
    numbers: tuple[int, int]
    text: str

    @property
    def name(self) -> str:
        """Such as `picture 1` or `question 2`."""
        picture, turn = self.numbers
        number = {PICTURE: picture, QUESTION: turn, QUERIES: turn}
        return " + ".join(f"{role} {number[role]}" if role in number else role for role in self.roles)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"start": self.start, "stop": self.stop, "is": self.name, "text": self.text}


def runs_of(row: Row, processor: FlashSlothProcessor) -> list[Run]:
    """The runs of a row, from its first token to its last."""
    kinds = list(map(_kind, *(row[name] for name in ("image_index", "question_turn", "query_turn", "labels"))))
    runs = []
    position = 0
    for (roles, numbers), group in groupby(kinds):
        start, position = position, position + len(list(group))
        placeholders = {PICTURE, QUERIES} & set(roles)
        ids = row["input_ids"][start:position]
        text = "" if placeholders else processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        runs.append(Run(start, position, roles, numbers, text))
    return runs


def written(runs: list[Run]) -> str:
    """The prompt as the template writes it, a placeholder for each picture and query, what is learned in ⟦ and ⟧."""
    text = ""
    for run in runs:
        if PICTURE in run.roles or QUERIES in run.roles:
            text += IMAGE_TOKEN if PICTURE in run.roles else QUERY_TOKEN
        else:
            text += f"⟦{run.text}⟧" if SUPERVISED in run.roles else run.text
    return text


def _kind(picture: int, question: int, query: int, label: int) -> tuple[tuple[str, ...], tuple[int, int]]:
    """What one token is, and of which picture and turn."""
    present = {PICTURE: picture, QUESTION: question, QUERIES: query, SUPERVISED: label != IGNORED_LABEL}
    roles = tuple(role for role, there in present.items() if there)
    return roles if roles else (PROMPT,), (picture, question or query)


__all__ = ["MEANINGS", "PICTURE", "PROMPT", "QUERIES", "QUESTION", "SUPERVISED", "Run", "runs_of", "written"]
