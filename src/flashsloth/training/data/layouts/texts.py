"""`texts`, a list of user and assistant pairs about the pictures in `images`: FineVision and The Cauldron."""

from __future__ import annotations

from typing import Any

from flashsloth.training.data.layouts.fields import Said, list_in, pictures_named, system_turn, text_of
from flashsloth.training.data.sample import BadSampleError

FIELDS = ("texts",)
NAME = "texts of user and assistant"


def holds(record: dict[str, Any]) -> bool:
    """Whether a record is of this layout."""
    return bool(record.get("texts"))


def read(record: dict[str, Any]) -> Said:
    """Its turns and pictures."""
    said = system_turn(record)
    for place, pair in enumerate(list_in(record, "texts", "user and assistant")):
        if not isinstance(pair, dict):
            raise BadSampleError(f"text {place} is {type(pair).__name__}, expected user and assistant")
        said += [(role, text_of(pair.get(role), f"{role} of text {place}")) for role in ("user", "assistant")]
    return NAME, said, pictures_named(record)
