"""The standard job: what every subject is asked to do.

In: how much text, how many new tokens, and a seed. Out: pictures already in memory, and token ids; no tokenizer, since
speed does not depend on what is said, and no words: each subject gets ids of its own vocabulary.

    opening | picture | question | closing        the text in that order, as in "... USER: <image> Why? ASSISTANT:"

Every picture of a run is a new one, so that nothing a subject remembers of an earlier run helps it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flashsloth.benchmark.errors import BenchmarkError

if TYPE_CHECKING:
    from PIL import Image

WIDTH, HEIGHT = 640, 480
"""Of every picture, in pixels."""
TEXT_TOKENS = 64
NEW_TOKENS = 64
OPENING_SHARE = 35 / TEXT_TOKENS
"""Of the text, what stands before the picture: a system text and "USER:"."""
CLOSING_TOKENS = 4
"""What stands after the question: "ASSISTANT:"."""
LEAST_TEXT_TOKENS = 8
LEAST_NEW_TOKENS = 2
"""One, and no time from token to token could be told."""
PICTURES, OPENING, QUESTIONS, CLOSING = range(4)
"""Streams of random numbers, so that changing one thing changes nothing else."""


@dataclass(frozen=True)
class Text:
    """Token ids of one prompt, without its picture."""

    opening: list[int]
    question: list[int]
    closing: list[int]


@dataclass(frozen=True)
class StandardJob:
    """One picture, some text, greedy decoding, a forced number of new tokens.

    Attributes:
        text_tokens: of the prompt, visual and query tokens not counted.
        new_tokens: of the answer; nothing ends it earlier.
        seed: of pictures, ids and weights.

    Raises:
        BenchmarkError: for numbers that make no job.
    """

    text_tokens: int = TEXT_TOKENS
    new_tokens: int = NEW_TOKENS
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("text_tokens", LEAST_TEXT_TOKENS), ("new_tokens", LEAST_NEW_TOKENS), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BenchmarkError(f"{name} is {value!r}; expected a whole number, at least {least}")

    def picture(self, number: int) -> Image.Image:
        """Coloured noise, RGB; another number, another picture."""
        import numpy as np
        from PIL import Image

        generator = np.random.default_rng((self.seed, PICTURES, number))
        return Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))

    def text(self, vocabulary: int, forbidden: Collection[int], question: int = 0) -> Text:
        """Ids below `vocabulary`, none of them forbidden; another number, another question."""
        opening = min(round(self.text_tokens * OPENING_SHARE), self.text_tokens - CLOSING_TOKENS - 1)
        asked = self.text_tokens - opening - CLOSING_TOKENS
        return Text(
            opening=self._ids(opening, vocabulary, forbidden, OPENING, 0),
            question=self._ids(asked, vocabulary, forbidden, QUESTIONS, question),
            closing=self._ids(CLOSING_TOKENS, vocabulary, forbidden, CLOSING, 0),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)

    def _ids(self, count: int, vocabulary: int, forbidden: Collection[int], stream: int, number: int) -> list[int]:
        generator = random.Random(f"{self.seed} {stream} {number}")
        ids: list[int] = []
        while len(ids) < count:
            drawn = generator.randrange(vocabulary)
            if drawn not in forbidden:
                ids.append(drawn)
        return ids
