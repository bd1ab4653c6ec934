"""A client's messages as the engine takes them, whichever interface they came by.

In: roles and parts, `{"type": "text", "text": ...}` or `{"type": "image"}`. Out: a :class:`Conversation`.

A message's pictures stand before its text, as the command line writes them, where they stand together; pictures
between texts stay there. Messages of one role in a row are one message. The first ones may be a system's or a
developer's, which are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from flashsloth.inference.prompt import Messages
from flashsloth.serving.api_error import invalid
from flashsloth.serving.openai_schema import shown

SYSTEM_ROLES = ("system", "developer")
USER, ASSISTANT = "user", "assistant"
Parts = list[dict[str, Any]]


@dataclass(frozen=True)
class Conversation:
    """Messages of user and assistant in turn, the last a user's.

    Attributes:
        messages: in our form.
        pictures: of their places, in order: data URLs or addresses.
        system: what opens the prompt; None for the model's own.
        ignored: fields that were given and change nothing.
    """

    messages: Messages
    pictures: tuple[str, ...]
    system: str | None
    ignored: tuple[str, ...]


class ConversationReader:
    """Takes messages in, one after the other.

    Args:
        most_pictures: in all of them.
        param: the part of the body that holds them, for errors.
        system: what stands before the first one's system text.
        most_characters: of all their texts; None for any number.

    Attributes:
        pictures: of all places so far; who reads a part that shows one adds it here.
        ignored: fields that change nothing; who finds one adds it here.
    """

    def __init__(
        self, most_pictures: int, param: str, system: str | None = None, most_characters: int | None = None
    ) -> None:
        self.pictures: list[str] = []
        self.ignored: list[str] = []
        self._most, self._param, self._most_characters = most_pictures, param, most_characters
        self._system = [] if system is None else [system]
        self._turns: Messages = []
        self._characters = len(system or "")

    def add(self, role: str, parts: Parts, where: str) -> None:
        """The next message, which stands at `where` in the body.

        Raises:
            ApiError: 400 for one that cannot come next.
        """
        self._count(parts)
        turns = self._turns
        if role in SYSTEM_ROLES:
            if turns:
                raise invalid(f"{where} is a {role} message: expected those first", f"{where}.role")
            if any(part["type"] == "image" for part in parts):
                raise invalid(f"{where} shows a picture: expected pictures in user messages", f"{where}.content")
            self._system.append(_text(parts))
        elif role in (USER, ASSISTANT):
            if role == ASSISTANT and not turns:
                raise invalid(f"{where} is an assistant message: expected a user message first", f"{where}.role")
            if role == ASSISTANT and any(part["type"] == "image" for part in parts):
                raise invalid(f"{where} shows a picture: expected pictures in user messages", f"{where}.content")
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += parts
            else:
                turns.append({"role": role, "content": parts})
        else:
            text = f"{where}.role is {shown(role)}; expected system, developer, user or assistant"
            raise invalid(text, f"{where}.role")

    def read(self) -> Conversation:
        """All of it.

        Raises:
            ApiError: 400 where there is nothing to answer, or too many pictures.
        """
        if not self._turns or self._turns[-1]["role"] != USER:
            raise invalid("the last message is not a user's: expected one to answer", self._param)
        if len(self.pictures) > self._most:
            text = f"the messages hold {len(self.pictures)} pictures; expected at most {self._most}"
            raise invalid(text, self._param, "too_many_images")
        self._count([])
        written: Messages = [{"role": one["role"], "content": _arranged(one)} for one in self._turns]
        system = "\n\n".join(self._system) if self._system else None
        return Conversation(written, tuple(self.pictures), system, tuple(self.ignored))

    def _count(self, parts: Parts) -> None:
        """Refuse what no prompt can hold before it is written: that would take minutes, and gigabytes."""
        self._characters += sum(len(part.get("text", "")) + 1 for part in parts)
        if self._most_characters is not None and self._characters > self._most_characters:
            text = f"the texts have more than {self._most_characters:,} characters, which this model's context cannot "
            raise invalid(f"{text}hold: shorten them", self._param)


def _arranged(message: dict[str, Any]) -> Parts | str:
    """A message's parts, texts that follow each other joined, and its pictures first if they stand together."""
    parts: Parts = []
    for kind, group in groupby(message["content"], key=itemgetter("type")):
        alike = list(group)
        parts += [{"type": kind, "text": _text(alike)}] if kind == "text" else alike
    if message["role"] == ASSISTANT:
        return _text(parts)
    kinds = [kind for kind, _ in groupby(part["type"] for part in parts)]
    return sorted(parts, key=itemgetter("type")) if kinds == ["text", "image"] else parts


def _text(parts: Sequence[dict[str, Any]]) -> str:
    return "\n".join(part["text"] for part in parts)
