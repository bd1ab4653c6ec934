"""An answer as it is made: token ids to pieces of text.

In: token ids, one after the other. Out: text whose pieces, joined, are the whole answer's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet a whole one."""


class AnswerText:
    """The text of an answer that grows token by token.

    White space at either end is not part of an answer; a character's first bytes, and white space that may turn out to
    be the end, wait until what follows is known.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._given = ""
        self.ids: list[int] = []

    def add(self, token_id: int) -> str:
        """The text that became certain with this token; often, and rightly, ""."""
        self.ids.append(token_id)
        text = self._decode().lstrip()
        return "" if text.endswith(UNFINISHED) else self._advance(text.rstrip())

    def finish(self) -> str:
        """The rest, when no token follows."""
        return self._advance(self.text)

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """Add tokens as they come: the pieces of text, none empty."""
        for token_id in tokens:
            if piece := self.add(token_id):
                yield piece
        if piece := self.finish():
            yield piece

    @property
    def text(self) -> str:
        """The whole answer so far."""
        return self._decode().strip()

    def _decode(self) -> str:
        return self._tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _advance(self, text: str) -> str:
        piece = text[len(self._given) :]
        self._given += piece
        return piece


def text_of(ids: list[int], tokenizer: Any) -> str:
    """The answer that token ids spell."""
    answer = AnswerText(tokenizer)
    answer.ids = ids
    return answer.text
