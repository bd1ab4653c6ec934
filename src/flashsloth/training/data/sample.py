"""What training data is made of: one conversation, where it comes from, and what is wrong with a bad one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from flashsloth.errors import FlashSlothError
from flashsloth.media import PictureError

_WORKERS_TRACEBACK = "\nOriginal Traceback"
"""What torch puts into the message of an error that comes out of a worker process."""


class DataError(FlashSlothError, ValueError):
    """A mistake in training data; names the file and the sample. One line, out of a worker process too."""

    def __init__(self, message: str) -> None:
        if _WORKERS_TRACEBACK in message:
            last = message.rstrip().rpartition("\n")[2]
            message = last.partition("Error: ")[2] or last.partition(": ")[2] or last
        super().__init__(message)


@dataclass(frozen=True)
class Where:
    """A sample's place: the file or world it is from, its number in it from 0, and its own id."""

    source: str
    index: int
    id: str

    def __str__(self) -> str:
        return f"{self.source}, sample {self.index} (id {self.id!r})"


class BadSampleError(DataError):
    """One sample cannot be learned from.

    Attributes:
        kind: what is wrong, a key of :data:`KINDS`.
        reason: what is wrong with this one.
        where: its place, as far as it is known.
    """

    def __init__(self, reason: str, kind: str = "broken_turns", where: Where | None = None) -> None:
        super().__init__(reason if where is None else f"{where}: {reason}")
        self.kind, self.reason, self.where = kind, reason, where

    def at(self, where: Where) -> BadSampleError:
        """The same, with its place."""
        return self if self.where is not None else BadSampleError(self.reason, self.kind, where)


KINDS = {
    "unreadable_record": "not a readable record",
    "no_conversation": "no conversation",
    "broken_turns": "turns that do not alternate or hold no text",
    "unseen_medium": "video or sound, which cannot be taken in",
    "placeholder_mismatch": "placeholders and pictures differ in number",
    "missing_picture": "missing pictures",
    "unreadable_picture": "unreadable pictures",
    "nothing_supervised": "nothing supervised",
    "too_long": "longer than max_length",
}
"""What can make a sample bad -> the same in words."""


@dataclass
class Sample:
    """One conversation.

    Attributes:
        messages: as the processor takes them; a picture is a path, bytes, or a PIL image that was drawn.
        kinds: the kind of each answer, for evaluation.
        independent: whether each turn is a question of its own about the first turn's pictures.
        patches: what each patch of the one picture shows, int64 [P] a property, where that was asked for.
        where: its place in the data.
        resolution: "standard" or "hd", how much of its pictures is shown; None for all views that the model takes.
    """

    messages: list[dict[str, Any]]
    kinds: list[str] = field(default_factory=list)
    independent: bool = False
    patches: dict[str, np.ndarray] | None = None
    where: Where | None = None
    resolution: str | None = None


@contextmanager
def named(sample: Sample) -> Iterator[None]:
    """Say which sample it is that cannot be batched.

    Raises:
        BadSampleError: with its place.
    """
    try:
        yield
    except BadSampleError as error:
        raise (error if sample.where is None else error.at(sample.where)) from error.__cause__
    except PictureError as error:
        raise BadSampleError(str(error), "unreadable_picture", sample.where) from error


class Sizes(NamedTuple):
    """What is known of every sample without opening a picture.

    Attributes:
        text_bytes: int64 [N], bytes of its texts.
        pictures: int64 [N], how many it has.
    """

    text_bytes: np.ndarray
    pictures: np.ndarray
