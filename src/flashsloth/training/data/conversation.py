"""What every layout becomes: turns and pictures, checked, and from those the messages that the processor takes.

In: turns as `layouts.py` found them, (role, content), where content is a text, or a list of texts and of
numbers of pictures; and the pictures. Out: a :class:`Conversation`, or an error that says why there is none.

What the published files hold, and what becomes of it:
    one picture        its `<image>` moves to the front of its turn, as in the published code
    several pictures   each stands where its `<image>`, or its part, stands
    no `<image>`       where pictures are named, they stand in front of the first turn
    no picture         a question that says `<image>` is bad: there is nothing to see
    first turn "gpt"   left out, as in the published code (conversations that were cut into pieces begin so)

A picture's name means the file that is named or, where that is not there, the same with another ending: published lists
name `x.jpg` where the download gave `x.png` or `x.gif`. What a file holds is told from its content when
it is opened (`media/`), never from its name. A picture may also be written down in the record itself, as a data URL or
as base64 alone; nothing is fetched from a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from flashsloth.media import PictureError, data_url_bytes
from flashsloth.media.limits import shown
from flashsloth.training.data.refused_files import check_words, named_inside
from flashsloth.training.data.sample import BadSampleError

PLACEHOLDER = "<image>"

Content = str | list[str | int]
Message = dict[str, Any]
ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
DATA_SCHEME, FILE_SCHEME = "data:", "file://"
BASE64_BEGINNINGS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
"""How JPEG, PNG, GIF and WebP begin in base64."""
LEAST_BASE64 = 64
"""Characters: a shorter text is a name."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
SPELLINGS = (*ENDINGS, *(ending.upper() for ending in ENDINGS))


class Turn(NamedTuple):
    """What one side says: its words, and the numbers of the pictures that stand between them."""

    role: str
    parts: tuple[str | int, ...]

    @property
    def text(self) -> str:
        """The words alone."""
        first = self.parts[0] if len(self.parts) == 1 else 0
        return first if isinstance(first, str) else "".join([part for part in self.parts if isinstance(part, str)])


class Conversation(NamedTuple):
    """A record, read.

    Attributes:
        layout: what its fields showed it to be, in words.
        turns: a system text perhaps, then user and assistant in turn.
        pictures: what the record names, in order: a path, a URL, bytes, or None where only its file can tell.
        cut: turns in front of the first question, which are left out.
    """

    layout: str
    turns: list[Turn]
    pictures: list[Any]
    cut: int = 0


def conversation_of(layout: str, said: Sequence[tuple[str, Content]], pictures: Sequence[Any]) -> Conversation:
    """Check turns and put the pictures between their words.

    Args:
        layout: the reader's name.
        said: role (`user`, `assistant` or `system`) and content of each turn.
        pictures: in order.

    Raises:
        BadSampleError: naming the turn.
    """
    pictures = list(pictures)
    turns = [_turn(place, role, content, pictures) for place, (role, content) in enumerate(said)]
    turns, cut = _alternating(turns)
    return Conversation(layout, _placed(turns, len(pictures)), pictures, cut)


def _turn(place: int, role: str, content: Content, pictures: list[Any]) -> Turn:
    """A turn whose words can be written and hold nothing that cannot be seen."""
    parts = (content,) if isinstance(content, str) else tuple(content)
    for part in parts:
        if isinstance(part, int):
            if role != "user":
                raise BadSampleError(f"turn {place} is the {role}'s and holds a picture, expected it in a question")
            continue
        if part.isascii():
            continue
        try:
            part.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadSampleError(
                f"turn {place} holds half a character at {error.start}: write the file again"
            ) from error
    if role == "user" and "<" in (content if isinstance(content, str) else "".join(map(str, parts))):
        parts = named_inside(parts, pictures)
        for part in parts:
            if isinstance(part, str):
                check_words(part, place)
    return Turn(role, parts)


def _alternating(turns: list[Turn]) -> tuple[list[Turn], int]:
    """The turns from the first of the user's, user and assistant in turn to an answer, and how many were cut off.

    A system text stays in front.
    """
    system = turns[:1] if turns and turns[0].role == "system" else []
    rest = turns[len(system) :]
    cut = 1 if rest and rest[0].role == "assistant" else 0
    for place, turn in enumerate(rest[cut:]):
        expected = ("user", "assistant")[place % 2]
        if turn.role != expected:
            raise BadSampleError(f"turn {len(system) + cut + place} is the {turn.role}'s, expected the {expected}'s")
    kept = rest[cut:]
    if not kept:
        raise BadSampleError("holds no question, expected the user's turn and an answer")
    if len(kept) % 2:
        raise BadSampleError("ends with a question, expected the answer to it")
    if not any(turn.text.strip() for turn in kept if turn.role == "assistant"):
        raise BadSampleError("has empty answers alone, nothing to learn from", "nothing_supervised")
    return system + kept, cut


def _placed(turns: list[Turn], pictures: int) -> list[Turn]:
    """The turns with every picture's number in its place.

    Raises:
        BadSampleError: if the marks and the pictures differ in number.
    """
    stand = [part for turn in turns for part in turn.parts if isinstance(part, int)]
    if stand:  # the record says itself where they stand, so `<image>` is a word
        if sorted(stand) != list(range(pictures)):
            raise BadSampleError(
                f"places {len(stand)} pictures and names {pictures}, expected each of them in one place",
                "placeholder_mismatch",
            )
        return turns
    marks = sum([turn.text.count(PLACEHOLDER) for turn in turns if turn.role == "user"])
    if marks == pictures == 0:
        return turns
    if marks not in (0, pictures):
        named = f"{pictures} pictures" if pictures else "no picture"
        raise BadSampleError(
            f"says {PLACEHOLDER} {marks} times but names {named}, expected as many", "placeholder_mismatch"
        )
    numbers = iter(range(pictures))
    if marks:
        return [
            Turn(turn.role, _at_marks("".join(map(str, turn.parts)), numbers)) if turn.role == "user" else turn
            for turn in turns
        ]
    first = next(place for place, turn in enumerate(turns) if turn.role == "user")
    front = Turn("user", (*numbers, turns[first].text.strip()))
    return [*turns[:first], front, *turns[first + 1 :]]


def _at_marks(text: str, numbers: Any) -> tuple[str | int, ...]:
    """A text with the next numbers at its marks."""
    runs = text.split(PLACEHOLDER)
    parts: list[str | int] = [runs[0]]
    for run in runs[1:]:
        parts += [next(numbers), run]
    return tuple(part for part in parts if part != "")


def messages_of(conversation: Conversation, find: Callable[[Any], Any] | None = None) -> list[Message]:
    """A conversation as the processor takes it.

    Args:
        conversation: from :func:`conversation_of`.
        find: makes of each picture what the processor opens (a path, bytes); None leaves it as it is.

    Raises:
        BadSampleError: what `find` raises.
    """
    found = [
        {"type": "image", "image": picture if find is None else find(picture)} for picture in conversation.pictures
    ]
    messages: list[Message] = []
    for role, parts in conversation.turns:
        if role != "user":
            messages.append({"role": role, "content": "".join(map(str, parts))})
        elif not any(isinstance(part, int) for part in parts):
            words = "".join(map(str, parts))
            messages.append({"role": role, "content": [{"type": "text", "text": words.strip() if found else words}]})
        elif len(found) == 1:
            words = "".join(part for part in parts if isinstance(part, str)).strip()
            messages.append({"role": role, "content": [found[0], {"type": "text", "text": words}]})
        else:
            messages.append({"role": role, "content": _interleaved(parts, found)})
    return messages


def _interleaved(parts: tuple[str | int, ...], pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a turn with its pictures in their places; words lose the line ends beside pictures."""
    made: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, int):
            made.append(pictures[part])
        elif part.strip():
            made.append({"type": "text", "text": part.strip("\n")})
    return made


def unexpected(value: object) -> str:
    """A value of the wrong type, short enough for a line."""
    return (
        f"{type(value).__name__} {shown(str(value))}" if isinstance(value, (str, int, float)) else type(value).__name__
    )


def find_picture(folder: Path, name: object) -> Path | bytes:
    """The file that is meant, or the picture itself where that is what the name is.

    Raises:
        BadSampleError: if there is no such file, under any ending, or it would have to be fetched.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise BadSampleError(f"names {unexpected(name)} as a picture, expected a path", "missing_picture")
    if (written := _written_down(name)) is not None:
        return written
    if scheme := _SCHEME.match(name):
        if scheme.group().lower() != FILE_SCHEME:
            raise BadSampleError(
                f"{shown(name)} is a URL, and nothing is fetched: download the pictures and name the files",
                "missing_picture",
            )
        name = unquote(name[len(FILE_SCHEME) :])
    path = folder / name
    if os.path.isfile(path):
        return path
    stem, ending = os.path.splitext(path)
    if ending.lower() in ENDINGS:
        for other in SPELLINGS:
            if os.path.isfile(stem + other):
                return Path(stem + other)
    raise BadSampleError(f"{shown(str(path))}: no such file, nor with another ending", "missing_picture")


def _written_down(name: str) -> bytes | None:
    """The bytes of a data URL, or of a picture in base64; None for a name."""
    if name[: len(DATA_SCHEME)].lower() != DATA_SCHEME:
        if len(name) < LEAST_BASE64 or "." in name or not name.startswith(BASE64_BEGINNINGS):
            return None
        name = f"{DATA_SCHEME}image;base64,{name}"
    try:
        return data_url_bytes(name)
    except PictureError as error:
        raise BadSampleError(str(error), "unreadable_picture") from error
