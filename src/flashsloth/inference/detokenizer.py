"""An answer's text as it grows: token ids to pieces of text, up to its end or a stop string.

In: token ids, one after the other. Out: pieces of text that, joined, are the whole answer's text. A token costs the
decoding of a few, however long the answer is.

What is held back until more is known: the first bytes of a character, white space that may turn out to be the end, and
what may become a stop string. White space at either end is not part of an answer; nor is a stop string
and what follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet a whole one."""


class Detokenizer:
    """The text of one answer.

    Args:
        tokenizer: the model's.
        stop: texts that end the answer.

    Attributes:
        ids: added so far.
        stopped: whether a stop string has come; nothing more is added then.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self.ids: list[int] = []
        self.stopped = False
        self._start = self._end = 0  # ids of the window whose text is known: those before `_end`
        self._text = ""  # of all ids before `_end`, as they were decoded
        self._returned = 0  # characters of `text` that were returned
        self._searched = 0  # characters of `_text` in which no stop string begins

    def add(self, token_id: int) -> str:
        """The text that became certain with this token; often, and rightly, ""."""
        if self.stopped:
            return ""
        self.ids.append(token_id)
        further = self._unfinished()
        if not further or further.endswith(UNFINISHED):
            return ""
        self._text += further
        self._start, self._end = self._end, len(self.ids)
        if self._find_stop():
            return self._advance(self._text.strip())
        return self._advance(self._text[: len(self._text) - self._held_back()].strip())

    def extend(self, token_ids: Sequence[int]) -> str:
        """The text that became certain with these tokens: of many at once, it costs what it costs of one."""
        if self._stop or self.stopped:  # where a stop string ends depends on the token that completes it
            return "".join([self.add(one) for one in token_ids])
        self.ids += token_ids[:-1]
        return self.add(token_ids[-1]) if token_ids else ""

    def finish(self) -> str:
        """The rest, when no token follows."""
        if not self.stopped:
            self._text += self._unfinished()
            self._start, self._end = self._end, len(self.ids)
            self._find_stop()
        return self._advance(self._text.strip())

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """Add tokens as they come: the pieces of text, none empty."""
        for token_id in tokens:
            if piece := self.add(token_id):
                yield piece
            if self.stopped:
                break
        if piece := self.finish():
            yield piece

    @property
    def certain(self) -> str:
        """What no later token changes, white space at either end included; cut before a stop string."""
        return self._text

    @property
    def text(self) -> str:
        """The whole answer so far."""
        return (self._text if self.stopped else self._text + self._unfinished()).strip()

    def _unfinished(self) -> str:
        """What the last ids spell that are not in the text yet."""
        known = self.decode(self.ids[self._start : self._end])
        return self.decode(self.ids[self._start :])[len(known) :]

    def _find_stop(self) -> bool:
        """Cut the text before the first stop string, if one is there."""
        places = [(place, stop) for stop in self._stop if (place := self._text.find(stop, self._searched)) >= 0]
        if places:
            self._text, self.stopped = self._text[: min(places)[0]], True
        else:
            longest = max(map(len, self._stop), default=1)
            self._searched = max(0, len(self._text) - longest + 1)
        return self.stopped

    def _held_back(self) -> int:
        """How many last characters may become a stop string."""
        return max((self._begun(stop) for stop in self._stop), default=0)

    def _begun(self, stop: str) -> int:
        """How many last characters a stop string begins with."""
        place = self._text.find(stop[0], max(0, len(self._text) - len(stop) + 1))
        while place >= 0 and not stop.startswith(self._text[place:]):
            place = self._text.find(stop[0], place + 1)
        return len(self._text) - place if place >= 0 else 0

    def decode(self, ids: list[int]) -> str:
        """What ids spell, white space at either end included."""
        return raw_text(ids, self._tokenizer)

    def _advance(self, text: str) -> str:
        piece = text[self._returned :]
        self._returned = max(self._returned, len(text))
        return piece


def raw_text(ids: Sequence[int], tokenizer: Any) -> str:
    """What token ids spell, white space at either end included; nothing of special tokens."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def text_of(ids: Sequence[int], tokenizer: Any, stop: Sequence[str] = ()) -> str:
    """The answer that token ids spell, up to a stop string."""
    if not stop:
        return raw_text(ids, tokenizer).strip()
    return "".join(Detokenizer(tokenizer, stop).pieces(ids))
