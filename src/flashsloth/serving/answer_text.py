"""An answer's text as it grows, and of each token its share of that text.

In: tokens, as the engine makes them. Out: pieces of text that, joined, are the answer's content, and, where
log-probabilities are wanted, tokens whose texts, joined, are the same content.

A token's text is what it adds to the text of all ids: nothing for the first bytes of a character, which its last token
has whole; its bytes say which of them it has. Tokens outside the content (the end token, white space at either end, a
stop string and what follows it) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from flashsloth.inference.detokenizer import Detokenizer
from flashsloth.inference.sampling import Sampled

REPLACEMENT = "\ufffd"
"""What stands for bytes that are no character."""
BYTE = re.compile("<0x([0-9A-F]{2})>")
"""A byte, as vocabularies made by SentencePiece write it."""


@dataclass(frozen=True)
class TokenText:
    """A token of an answer with its share of the content.

    Attributes:
        sampled: the token.
        text: its share.
        is_first: whether no token before has any.
    """

    sampled: Sampled
    text: str
    is_first: bool = False


class AnswerText:
    """The text of one answer.

    Args:
        tokenizer: the model's.
        stop: texts that end the answer.
        by_token: whether tokens are kept until their text is certain.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), by_token: bool = False) -> None:
        self._detokenizer = Detokenizer(tokenizer, stop)
        self._by_token = by_token
        self._pending: list[tuple[Sampled, int]] = []  # with where its text ends among all text, white space included
        self._content = ""
        self._given = 0  # characters of the content that tokens were handed out for

    def add(self, tokens: Sequence[Sampled]) -> tuple[str, list[TokenText]]:
        """The text that became certain with these tokens, and the tokens that it completes."""
        if self._by_token:
            piece = "".join([self._added(one) for one in tokens])
        else:
            piece = self._detokenizer.extend([one.token for one in tokens])
        return self._release(piece, is_end=False)

    def finish(self) -> tuple[str, list[TokenText]]:
        """The rest."""
        return self._release(self._detokenizer.finish(), is_end=True)

    @property
    def content(self) -> str:
        """All text so far."""
        return self._content

    def _added(self, one: Sampled) -> str:
        piece = self._detokenizer.add(one.token)
        self._pending.append((one, len(self._detokenizer.certain)))
        return piece

    def _release(self, piece: str, *, is_end: bool) -> tuple[str, list[TokenText]]:
        self._content += piece
        if not self._by_token:
            return piece, []
        certain = self._detokenizer.certain
        start = len(certain) - len(certain.lstrip())  # white space before the content
        if is_end and self._pending:  # bytes that became no character belong to the last token
            self._pending[-1] = self._pending[-1][0], len(certain)
        released: list[TokenText] = []
        empty: list[TokenText] = []  # tokens without a text of their own: bytes of the next one's character, or none
        for one, end in self._pending:
            last = min(max(end - start, self._given), len(self._content))
            if end - start > len(self._content) and not is_end:
                break
            empty.append(TokenText(one, self._content[self._given : last], not self._given))
            if last > self._given:
                released, empty = [*released, *empty], []
            self._given = last
        del self._pending[: len(released)]
        return piece, released


def described_token(token: TokenText, tokenizer: Any) -> dict[str, Any]:
    """A token with its log-probabilities, as OpenAI's clients read it.

    Its bytes are those of its text; of a token that holds a part of a character, they are its own, so that all tokens'
    bytes, joined, are the content's too. Among the likeliest it is written as it is by itself, so that it is found.
    """
    beside = [
        {"token": tokenizer.decode([one]), "logprob": logprob, "bytes": list(token_bytes(one, tokenizer))}
        for one, logprob in token.sampled.top
    ]
    whole = token_bytes(token.sampled.token, tokenizer)
    own = token.text.encode()
    if not _is_text(whole):
        own = whole.lstrip() if token.is_first else whole
    for (one, _), described in zip(token.sampled.top, beside, strict=True):
        if one == token.sampled.token:
            described |= {"token": token.text, "bytes": list(own)}
    return {"token": token.text, "logprob": token.sampled.logprob, "bytes": list(own), "top_logprobs": beside}


def token_bytes(token: int, tokenizer: Any) -> bytes:
    """What a token is written as, which may be a part of a character."""
    text: str = tokenizer.decode([token])
    if REPLACEMENT not in text:
        return text.encode()
    written: str = tokenizer.convert_ids_to_tokens(token)
    if alone := BYTE.fullmatch(written):
        return bytes([int(alone[1], 16)])
    table = _byte_of_character()
    return bytes(table[one] for one in written) if set(written) <= set(table) else text.encode()


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


@cache
def _byte_of_character() -> dict[str, int]:
    """How byte-level vocabularies, GPT-2's and those after it, write bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}
