"""A picture and what it shows: `caption`, `captions`, `text` or `txt` beside `image`.

The caption answers a request that is always the same. The alignment stage writes no words of the user's, so there it is
LLaVA's first stage: picture and caption. Of several captions the first is taken.
"""

from __future__ import annotations

from typing import Any

from flashsloth.training.data.layouts.fields import Said, pictures_named, system_turn, text_of
from flashsloth.training.data.sample import BadSampleError

FIELDS = ("caption", "captions", "text", "txt")
REQUEST = "Provide a brief description of the given image."
"""One of those that LLaVA's first stage has beside its captions."""


def holds(record: dict[str, Any]) -> bool:
    """Whether a record is of this layout: a caption needs a picture."""
    return any(record.get(field) is not None for field in FIELDS) and bool(pictures_named(record))


def read(record: dict[str, Any]) -> Said:
    """Its turns and pictures."""
    field = next(field for field in FIELDS if record.get(field) is not None)
    caption = record[field]
    if isinstance(caption, (list, tuple)):
        if not caption:
            raise BadSampleError(f"{field} is empty, expected a caption", "nothing_supervised")
        caption = caption[0]
    said = [*system_turn(record), ("user", REQUEST), ("assistant", text_of(caption, field).strip())]
    return f"picture and {field}", said, pictures_named(record)
