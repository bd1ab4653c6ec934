"""MiniCPM's pictures: `image` maps marks to pictures, `{"<image_00>": "a.jpg", "<image_01>": ...}`, and turns say them.

Where no turn says any of them, they stand in front of the first question, in order of their marks.
"""

from __future__ import annotations

import re
from typing import Any

from flashsloth.media.limits import shown
from flashsloth.training.data.conversation import Content
from flashsloth.training.data.sample import BadSampleError

_MARK = re.compile(r"(<image_\d+>)")


def is_numbered(found: dict[str, Any]) -> bool:
    """Whether what stands in `image` maps marks to pictures."""
    return bool(found) and all(_MARK.fullmatch(str(key)) for key in found)


class NumberedPictures:
    """The pictures, numbered in the order of their marks.

    Args:
        named: mark -> picture; None for one that another record has.
    """

    def __init__(self, named: dict[str, Any]) -> None:
        marks = sorted(named, key=lambda mark: int(mark.strip("<image_>")))
        present = [mark for mark in marks if named[mark] is not None]
        self.numbers = {mark: number for number, mark in enumerate(present)}
        self.pictures = [named[mark] for mark in present]

    def content(self, role: str, content: Any) -> Content:
        """A turn's text, with a number in the place of each mark of the user's.

        Raises:
            BadSampleError: for a mark that names no picture, or content that is no text.
        """
        if not isinstance(content, str):
            raise BadSampleError(f"has {type(content).__name__} as a turn's content, expected a text")
        if role != "user":
            return content
        runs = _MARK.split(content)
        if len(runs) == 1:
            return content
        unknown = next((mark for mark in runs[1::2] if mark not in self.numbers), None)
        if unknown is not None:
            raise BadSampleError(f"says {shown(unknown)}, but image has no such picture", "placeholder_mismatch")
        parts: list[str | int] = [self.numbers[run] if place % 2 else run for place, run in enumerate(runs)]
        return [part for part in parts if part != ""]
