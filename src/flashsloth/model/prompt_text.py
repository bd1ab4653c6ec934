"""A written prompt, taken apart: text to tokenize, structural tokens, and where questions begin.

In: a prompt as the chat template writes it, in which structural tokens stand for themselves and everything of the
user's is escaped; or one that somebody wrote by hand. Out: a :class:`Prompt`, and from it, token by token, each
question's place.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from flashsloth.model.chat_template import ESCAPE, IMAGE_TOKEN, QUERY_TOKEN, QUESTION_START

USER_TAG = "USER:"
"""What opens a turn in a text that marks no question."""


class Piece(NamedTuple):
    """A run of text to tokenize, or one structural token; `origin` maps its characters to the prompt's."""

    text: str
    token_id: int | None
    origin: list[int]


class Prompt(NamedTuple):
    """A prompt taken apart: its pieces, the characters where questions begin, the (start, end) of its answers."""

    pieces: list[Piece]
    question_starts: list[int]
    answers: list[tuple[int, int]]


class PromptText:
    """What has a meaning in a prompt, for one tokenizer: finds it, and takes the meaning from a user's text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokens = _structural_tokens(tokenizer)
        self._structure = re.compile(
            "|".join(
                (
                    f"(?P<escaped>{ESCAPE}.)",
                    f"(?P<start>{QUESTION_START})",
                    f"(?P<token>{'|'.join(re.escape(token) for token in tokens)})",
                )
            ),
            re.DOTALL,
        )
        openings = {token[0] for token in tokens} | {ESCAPE, QUESTION_START}
        self._opening = re.compile("|".join(re.escape(character) for character in sorted(openings)))

    def escape(self, text: str) -> str:
        """Mark every character that could open something with a meaning, so that it opens nothing.

        Not only those that do: texts are joined when they are written down, and two halves may make a placeholder.
        """
        return self._opening.sub(lambda match: ESCAPE + match.group(), text)

    def take_apart(self, prompt: str, answers: list[tuple[int, int]]) -> Prompt:
        """Split a written prompt at its structural tokens, undo escapes, and note where questions begin."""
        pieces: list[Piece] = []
        starts: list[int] = []
        text, place = "", 0
        origin: list[int] = []

        def add_text(run: str, position: int) -> None:
            nonlocal text
            text += run
            origin.extend(range(position, position + len(run)))

        for match in self._structure.finditer(prompt):
            add_text(prompt[place : match.start()], place)
            place = match.end()
            if match.lastgroup == "escaped":
                add_text(match.group()[1:], match.start() + 1)
            elif match.lastgroup == "start":
                starts.append(match.start())
            else:
                if text:
                    pieces.append(Piece(text, None, origin))
                    text, origin = "", []
                token_id = self._tokenizer.convert_tokens_to_ids(match.group())
                pieces.append(Piece(match.group(), token_id, [match.start()]))
        add_text(prompt[place:], place)
        if text:
            pieces.append(Piece(text, None, origin))
        return Prompt(pieces, starts, answers)


class QuestionFinder:
    """Where the question of the turn being read begins: at its mark; unmarked, where the published prompt has it."""

    def __init__(self, marks: list[int]) -> None:
        self.marks = list(marks)
        self.marked: int | None = None
        self.unmarked = 0
        self.after_image = False

    def text(self, piece: Piece, ends: list[int], first: int) -> None:
        """Look for a mark inside a text piece whose tokens end at `ends` and stand from position `first`."""
        if self.after_image and piece.text.startswith("\n"):
            self.unmarked = first + sum(end <= 1 for end in ends)
        elif not self.after_image and piece.text.startswith(USER_TAG):
            self.unmarked = first + sum(end <= len(USER_TAG) for end in ends)
        self.after_image = False
        while self.marks and self.marks[0] <= piece.origin[-1] + 1:
            mark = self.marks.pop(0)
            if self.marked is None:
                self.marked = first + sum(piece.origin[max(end - 1, 0)] < mark for end in ends)

    def structure(self, position: int, *, is_image: bool) -> None:
        """A structural token was passed; the next text begins at `position`."""
        self.unmarked, self.after_image = position, is_image

    def end(self, position: int) -> range:
        """The question's positions, at its queries; the next one is looked for from here."""
        start = self.unmarked if self.marked is None else self.marked
        self.marked = None
        return range(min(start, position), position)


def _structural_tokens(tokenizer: Any) -> list[str]:
    """Placeholders and special tokens, longest first, so that none hides behind its own beginning."""
    return sorted({IMAGE_TOKEN, QUERY_TOKEN, *tokenizer.all_special_tokens}, key=len, reverse=True)


__all__ = ["USER_TAG", "Piece", "Prompt", "PromptText", "QuestionFinder"]
