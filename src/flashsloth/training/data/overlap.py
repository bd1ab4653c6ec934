"""Whether held-out data is also learned from: the same conversation about the same pictures, by digest.

In: a stage's training data and its held-out data. Out: how many samples are in both, and one of them. Conversations are
compared by their texts' digests; only where those are equal are pictures read. Of large data some samples are looked
at, spread evenly. Drawn worlds are compared by what they are drawn from: no picture is drawn.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flashsloth.training.data.mixture import Joined
from flashsloth.training.data.records import RecordData
from flashsloth.training.data.sample import DataError, Sample

MOST_LOOKED_AT = 100_000
"""Samples of a source: more would keep a run waiting for more than a minute or so."""


_Known = dict[bytes, list[tuple[RecordData, int]]]
"""The digest of a held-out conversation's texts -> where such conversations stand."""


@dataclass
class Overlap:
    """What is in both.

    Attributes:
        samples: held-out samples that were found in training data.
        example: the places of one of them, in words; empty for none.
        is_whole: whether every sample was looked at.
    """

    samples: int = 0
    example: str = ""
    is_whole: bool = True

    def warning(self) -> str:
        """What to say of it."""
        least = "" if self.is_whole else "at least "
        return (
            f"{least}{self.samples} held-out samples are also learned from, such as {self.example}: scores say less "
            f"than they seem to; take them out of data or of eval_data"
        )


def overlap_of(learned: Joined, held_out: Joined, most: int = MOST_LOOKED_AT) -> Overlap:
    """What training data and held-out data share.

    Args:
        learned, held_out: the stage's.
        most: samples of a source that are looked at.
    """
    found = Overlap()
    known: _Known = {}
    for part in held_out.parts:
        if isinstance(part, RecordData):
            found.is_whole &= len(part) <= most
            for index, sample in _some(part, most):
                known.setdefault(_text_digest(sample), []).append((part, index))
    shared: set[str] = set()
    for part in learned.parts:
        if not isinstance(part, RecordData):  # one world, or one pack, of one name: the first samples of both
            for other in held_out.parts:
                if not isinstance(other, RecordData) and getattr(other, "name", None) == getattr(part, "name", ""):
                    found.samples += min(len(part), len(other))
                    found.example = found.example or f"sample 0 of {part.name}"
        elif known:
            found.is_whole &= len(part) <= most
            _look_through(part, most, known, shared, found)
    found.samples += len(shared)
    return found


def _look_through(part: RecordData, most: int, known: _Known, shared: set[str], found: Overlap) -> None:
    for _, sample in _some(part, most):
        for held_out, index in known.get(_text_digest(sample), ()):
            other = held_out[index]
            if _picture_digests(sample) == _picture_digests(other):
                shared.add(str(other.where))
                found.example = found.example or f"{other.where}, which is {sample.where}"


def _some(part: RecordData, most: int) -> Iterator[tuple[int, Sample]]:
    """Samples that can be read, and their numbers: as many as that at most, spread evenly."""
    for index in np.linspace(0, len(part) - 1, min(len(part), most)).astype(int):
        try:
            yield int(index), part[int(index)]
        except DataError:  # a bad one is learned from no more than it is asked about
            continue


def _text_digest(sample: Sample) -> bytes:
    digest = hashlib.sha256()
    for message in sample.messages:
        content = message["content"]
        parts = [content] if isinstance(content, str) else [part.get("text", "<image>") for part in content]
        digest.update(repr((message["role"], parts)).encode("utf-8", "surrogatepass"))
    return digest.digest()


def _picture_digests(sample: Sample) -> list[str]:
    """Of the bytes of each picture's file."""
    contents = [message["content"] for message in sample.messages]
    pictures = [part["image"] for parts in contents if not isinstance(parts, str) for part in parts if "image" in part]
    return [_digest(picture) for picture in pictures]


def _digest(picture: Any) -> str:
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    try:
        with open(os.fspath(picture), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return str(picture)  # it is told of where it is learned from
