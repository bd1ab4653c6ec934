"""JSON that people wrote, read strictly: a key that stands twice is a mistake; Python's own reader takes the last one.

In: text. Out: its value.
"""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is no JSON, or a key of a group is there twice.
        RecursionError: if it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_group)


def _group(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group = dict(pairs)
    if len(group) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return group


__all__ = ["parse_json"]
