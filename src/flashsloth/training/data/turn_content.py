"""What stands in a turn, where that is more than a text: parts, or marks of pictures.

In: a turn's content as its record has it, and the pictures that the record names. Out: a text, or a list of texts and
of pictures' numbers.

    [{"type": "text", "text": ...}, {"type": "image_url", "image_url": {"url": ...}}]   OpenAI
    [{"type": "image"}, {"type": "text", "text": ...}]       TRL: the pictures stand in `images`, in order or by `index`
    [{"type": "image", "image": ...}, {"text": ...}]                                    Qwen, with types or without
    "<image_00>\nWhat is it?"   MiniCPM: `image` maps marks to pictures; turns that have none have them all in front

Fields of None count as absent: tables have every field in every part. Words that would touch are parted by a line end.
"""

from __future__ import annotations

import re
from typing import Any

from flashsloth.media.limits import shown
from flashsloth.training.data.conversation import Content, unexpected
from flashsloth.training.data.sample import BadSampleError

TEXT_TYPES = {"text": "text", "input_text": "text", "output_text": "text"}
PICTURE_TYPES = ("image", "image_url", "input_image")
PICTURE_KEYS = ("image", "image_url", "url", "path", "base64", "bytes")
"""Where a part may keep its picture."""
MISMATCH = "placeholder_mismatch"
UNSEEN = ("video", "audio", "sound", "file", "document")
_MARK = re.compile(r"(<image_\d+>)")


class PartsReader:
    """Reads the parts of a record's turns, one turn after the other, and numbers their pictures.

    Args:
        beside: the pictures that the record's own fields name.
    """

    def __init__(self, beside: list[Any]) -> None:
        self.beside, self.own = beside, list[Any]()
        self.awaited = 0

    def content(self, content: Any, place: int) -> Content:
        """A turn's content with the number of each picture in its place."""
        if isinstance(content, str):
            return content
        parts: list[str | int] = []
        last = ""
        for number, part in enumerate([content] if isinstance(content, dict) else content):
            where = f"part {number} of turn {place}"
            found = self._part(part, where)
            if isinstance(found, str) and last and found and not last[-1].isspace() and not found[0].isspace():
                found = "\n" + found
            last = found if isinstance(found, str) and found else last
            parts.append(found)
        return parts if any(isinstance(part, int) for part in parts) else "".join(map(str, parts))

    def pictures(self) -> list[Any]:
        """The record's pictures, once all turns are read.

        Raises:
            BadSampleError: if they stand both in the parts and beside them, and differ in number.
        """
        if self.own and self.awaited:
            raise BadSampleError("has parts with a picture and parts without one, expected a picture in each", MISMATCH)
        if self.own and self.beside and len(self.own) != len(self.beside):
            raise BadSampleError(
                f"has {len(self.own)} pictures in its parts and {len(self.beside)} beside them, expected them once",
                MISMATCH,
            )
        return self.beside or self.own

    def _part(self, part: Any, where: str) -> str | int:
        if isinstance(part, str):
            return part
        if not isinstance(part, dict):
            raise BadSampleError(f"{where} is {type(part).__name__}, expected a type and what it holds")
        kind = part.get("type")
        if kind is None:  # the field that it has says it
            named = [key for key, value in part.items() if value is not None]
            kind = "image" if not set(PICTURE_KEYS).isdisjoint(named) else next(iter(named), None)
        if not isinstance(kind, str):
            raise BadSampleError(f"{where} has {type(kind).__name__} as its type, expected text or image")
        if kind in TEXT_TYPES:
            return text_of(part.get(TEXT_TYPES[kind]), where)
        if kind in PICTURE_TYPES:
            return self._picture(part, where)
        if any(word in kind for word in UNSEEN):
            raise BadSampleError(f"{where} is {shown(kind)}, which this model cannot take in", "unseen_medium")
        raise BadSampleError(f"{where} is of type {shown(kind)}, expected text or image")

    def _picture(self, part: dict[str, Any], where: str) -> int:
        """The number of a part's picture."""
        source = next((part[key] for key in PICTURE_KEYS if part.get(key) is not None), None)
        if source is None and isinstance(part.get("source"), dict):  # Anthropic's: a url, or base64 as data
            source = part["source"].get("data") or part["source"].get("url")
        if isinstance(source, dict) and "url" in source:
            source = source["url"]
        if source is not None:
            self.own.append(source)
            return len(self.own) - 1
        index = part.get("index")
        number = self.awaited if index is None else index
        if index is None and number >= len(self.beside):
            raise BadSampleError(
                f"{where} is a picture that is named neither there nor in images beside the turns", MISMATCH
            )
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.beside):
            raise BadSampleError(
                f"{where} is picture {unexpected(number)} of {len(self.beside)} that are named beside the turns",
                MISMATCH,
            )
        self.awaited += 1
        return number


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
            raise BadSampleError(f"says {shown(unknown)}, but image has no such picture", MISMATCH)
        parts: list[str | int] = [self.numbers[run] if place % 2 else run for place, run in enumerate(runs)]
        return [part for part in parts if part != ""]


def text_of(value: Any, where: str) -> str:
    """A text, or a BadSampleError that says where something else stands."""
    if not isinstance(value, str):
        raise BadSampleError(f"{where} is {type(value).__name__}, expected a text")
    return value
