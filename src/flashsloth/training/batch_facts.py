"""What a batch holds, counted where it is made: how much work it is, how much is learned from it, and whose it is.

In: a collator. Out: the same batches with :data:`FACTS_KEY` in them, a :class:`BatchFacts` that the trainer takes out
again before the model sees the batch. They are counted by the process that prepares the data: no device waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flashsloth.model.processing_flashsloth import IGNORED_LABEL

FACTS_KEY = "facts"
IDS_KEY = "ids"
"""Where a collator may put the names of its samples: list of str."""


@dataclass(frozen=True)
class BatchFacts:
    """One micro-batch.

    Attributes:
        ids: its samples' names; empty where the collator gives none.
        samples: how many they are.
        lengths: tokens of each row, without padding.
        supervised: tokens that the loss stands on; None where the loss is not one of tokens.
        pictures: how many are looked at.
    """

    ids: tuple[str, ...]
    samples: int
    lengths: tuple[int, ...]
    supervised: int | None
    pictures: int

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return sum(self.lengths)


class CountingCollator:
    """A collator that says what its batches hold."""

    def __init__(self, collator: Callable[[list[Any]], dict[str, Any]], pad_token_id: int | None) -> None:
        self.collator, self.pad_token_id = collator, pad_token_id

    def __call__(self, samples: list[Any]) -> dict[str, Any]:
        batch = dict(self.collator(samples))
        ids = tuple(str(name) for name in batch.pop(IDS_KEY, ()))
        batch[FACTS_KEY] = self._count(batch, ids, len(samples))
        return batch

    def _count(self, batch: dict[str, Any], ids: tuple[str, ...], samples: int) -> BatchFacts:
        pixels = batch.get("pixel_values")
        labels, tokens = batch.get("labels"), batch.get("input_ids")
        lengths: tuple[int, ...] = ()
        if tokens is not None:
            lengths = tuple(tokens.ne(-1 if self.pad_token_id is None else self.pad_token_id).sum(dim=1).tolist())
        return BatchFacts(
            ids=ids,
            samples=samples,
            lengths=lengths,
            # a token is learned from the one before it: the first position's label is not used
            supervised=None if labels is None else int(labels[:, 1:].ne(IGNORED_LABEL).sum()),
            pictures=0 if pixels is None else len(pixels),
        )


def take_facts(batch: dict[str, Any]) -> BatchFacts:
    """A batch's facts, which are then no longer in it."""
    facts = batch.pop(FACTS_KEY)
    assert isinstance(facts, BatchFacts)
    return facts


__all__ = ["FACTS_KEY", "IDS_KEY", "BatchFacts", "CountingCollator", "take_facts"]
