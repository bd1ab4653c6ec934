"""Who answers a benchmark: a FlashSloth here, any server with OpenAI's interface, a model of transformers.

In: what is asked, read as it is needed. Out: each one's place and its reply, as they get done. What could not be
answered comes as an error in its place, and is never scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from flashsloth.evaluation.item import Item
from flashsloth.evaluation.settings import TaskSettings
from flashsloth.inference.pipeline import FlashSloth

IMAGE_POLICY: Any = "official"
"""The published code's conversion of pictures."""


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: not stripped.
        tokens: it was made of; None where nobody says.
        finish_reason: why it ended.
    """

    text: str
    tokens: int | None
    finish_reason: str


class Answerer(Protocol):
    """Answers questions about pictures."""

    name: str

    def describe(self) -> dict[str, Any]:
        """What answers, for the header of predictions: equal where answers would be."""

    def answers(
        self, items: Iterable[Item], settings: TaskSettings, seed: int
    ) -> Iterator[tuple[int, Reply | Exception]]:
        """(place in `items`, reply) as they get done."""


class FlashSlothAnswerer:
    """A FlashSloth in this process.

    Args:
        sloth: the model.
        digest: of its weights.
        resolution: see `AnswerOptions`.
    """

    def __init__(self, sloth: FlashSloth, digest: str, resolution: str | None = None) -> None:
        self.name = sloth.name
        self._sloth, self._digest, self._resolution = sloth, digest, resolution

    def describe(self) -> dict[str, Any]:
        """See :class:`Answerer`."""
        dtype = str(self._sloth.dtype).removeprefix("torch.")
        return {"kind": "flashsloth", "digest": self._digest, "dtype": dtype, "resolution": self._resolution}

    def answers(
        self, items: Iterable[Item], settings: TaskSettings, seed: int
    ) -> Iterator[tuple[int, Reply | Exception]]:
        """See :class:`Answerer`."""
        pairs = ((_shown(item), item.prompt) for item in items)
        options: dict[str, Any] = {
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "seed": seed,
            "details": True,
            "image_policy": IMAGE_POLICY,
        }
        if self._resolution is not None:
            options["resolution"] = self._resolution
        for place, answer in self._sloth.answer_as_ready(pairs, on_error="return", **options):
            if isinstance(answer, Exception):
                yield place, answer
            else:
                yield place, Reply(answer.text, len(answer.tokens), answer.finish_reason)


def _shown(item: Item) -> Any:
    """An item's pictures, as FlashSloth takes them."""
    return [one() if callable(one) else one for one in item.pictures] or None
