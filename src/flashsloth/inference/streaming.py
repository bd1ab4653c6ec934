"""An answer as it is made: token ids from a running `generate` to pieces of text.

In: a function that runs `generate`. Out: an iterator of text whose pieces, joined, are the whole answer's text.

`generate` runs in a thread of its own and hands over each token; the reader gets text as soon as it is certain. A
reader who stops early (closes the iterator, Ctrl-C) stops the generation after the token it is at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet a whole one."""
THREAD_NAME = "flashsloth-stream"


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


class TokenThread:
    """Runs `generate` beside the reader. `with` it, its token ids can be read; leaving the block stops it.

    Attributes:
        failed: whether `generate` raised; the reader gets the error when it comes to it.
    """

    def __init__(self, generate: Callable[..., Any]) -> None:
        self._generate = generate
        self._queue: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self.failed = False

    def __enter__(self) -> Iterator[int]:
        self._thread.start()
        return self._tokens()

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _tokens(self) -> Iterator[int]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        criteria = StoppingCriteriaList([_WhenSet(self._stop)])
        try:
            self._generate(streamer=_QueueStreamer(self._queue), stopping_criteria=criteria)
        except BaseException as error:  # raised again in the reader's thread
            self.failed = True
            self._queue.put(error)
        self._queue.put(None)


class _QueueStreamer(BaseStreamer):
    """Puts every new token of a one-row generation into a queue; the prompt, which comes first, is left out."""

    def __init__(self, queue: SimpleQueue) -> None:
        self._queue = queue
        self._prompt_passed = False

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_passed:
            self._prompt_passed = True
            return
        for token_id in value.flatten().tolist():
            self._queue.put(token_id)

    def end(self) -> None:
        """Nothing: the thread's own end is the end."""


class _WhenSet(StoppingCriteria):
    """Stops every row once an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._event.is_set(), dtype=torch.bool, device=input_ids.device)
