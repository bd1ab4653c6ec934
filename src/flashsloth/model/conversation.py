"""A conversation as its user gives it, and the prompt that a chat template writes of it.

In: messages, each `{"role": ..., "content": text or parts}`, a part being `{"type": "text", "text": ...}` or
`{"type": "image", "image": PIL, path, bytes or data URL}`. Out: the same messages checked and escaped, safe to be
written down by a chat template; and the pictures, opened, in order.

In: a written prompt, in which structural tokens stand for themselves and everything of the user's is escaped; or one
that somebody wrote by hand. Out: a :class:`ParsedPrompt`: text to tokenize, structural tokens, and where questions
begin.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from PIL import Image

from flashsloth.media import open_picture
from flashsloth.model.chat_template import ESCAPE, IMAGE_TOKEN, QUERY_TOKEN, QUESTION_START

PICTURE_KEYS = ("image", "path", "url", "base64")
"""Where a part of type image may keep its picture."""
PART_TYPES = ("image", "text")

Message = dict[str, Any]
USER_TAG = "USER:"
"""What opens a turn in a text that marks no question."""


def plain_messages(chat: Any) -> Any:
    """The conversation as dicts, as transformers and OpenAI's clients may give it otherwise.

    A message or part may be an object with fields; what is None is as if it were not there; a part
    `{"type": "image_url", "image_url": {"url": ...}}` is a picture. What is no conversation comes back as it is, for
    :func:`check_conversation` to name.
    """
    if not isinstance(chat, (list, tuple)):
        return chat
    return [_plain_message(message) for message in chat]


def _plain_message(message: Any) -> Any:
    found = _fields(message)
    if found is None:
        return message
    plain = {name: value for name, value in found.items() if value is not None}
    if isinstance(plain.get("content"), (list, tuple)):
        plain["content"] = [_plain_part(part) for part in plain["content"]]
    return plain


def _plain_part(part: Any) -> Any:
    found = _fields(part)
    if found is None:
        return part
    if found.get("type") != "image_url":
        return dict(found)
    source = found.get("image_url")
    address = _fields(source)
    return {"type": "image", "url": source if address is None else address.get("url")}


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of a dict, a dataclass or a pydantic model; None for anything else."""
    if isinstance(value, dict):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "model_dump"):
        return dict(value.model_dump())
    return None


def check_conversation(chat: Any) -> None:
    """Refuse what is not a conversation.

    Raises:
        ValueError: naming the first thing that is wrong, and where.
    """
    if not isinstance(chat, (list, tuple)):
        raise ValueError(f"a conversation is {type(chat).__name__}, expected a list of messages")
    if not chat:
        raise ValueError("the conversation is empty: give at least one message, {'role': 'user', 'content': ...}")
    for number, message in enumerate(chat, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            found = sorted(message) if isinstance(message, dict) else type(message).__name__
            raise ValueError(f"message {number} is {found}, expected a dict with role and content")
        if not isinstance(message["content"], (str, list, tuple)):
            kind = type(message["content"]).__name__
            raise ValueError(f"content of message {number} is {kind}, expected a text or a list of parts")
        if not isinstance(message["content"], str):
            for part in message["content"]:
                _check_part(part, message["role"], number)


def _check_part(part: Any, role: Any, number: int) -> None:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind not in PART_TYPES:
        raise ValueError(f"message {number} has a part of type {kind!r}, expected a dict with type image or text")
    if kind == "text" and not isinstance(part.get("text"), str):
        raise ValueError(f"a text part of message {number} holds {type(part.get('text')).__name__}, expected text")
    if kind == "image" and role != "user":
        raise ValueError(f"message {number} of role {role!r} holds a picture: pictures stand in the user's messages")


def with_texts(chat: list[Message], change: Callable[[str], str]) -> list[Message]:
    """The messages, every text of theirs changed; lists of parts stay lists."""
    messages = []
    for message in chat:
        content = message["content"]
        if isinstance(content, str):
            content = change(content)
        else:
            content = [{**part, "text": change(part["text"])} if part["type"] == "text" else part for part in content]
        messages.append({**message, "content": content})
    return messages


def pictures_of(chat: list[Message]) -> list[Image.Image]:
    """The pictures of a conversation, opened, in order."""
    sources = []
    for message in chat:
        for part in message["content"] if not isinstance(message["content"], str) else ():
            if part["type"] == "image":
                source = next((part[key] for key in PICTURE_KEYS if part.get(key) is not None), None)
                if source is None:
                    raise ValueError(
                        "a picture in the conversation has no source: give it as {'type': 'image', 'image': ...}"
                    )
                sources.append(source)
    return [open_picture(source) for source in sources]


class Piece(NamedTuple):
    """A run of text to tokenize, or one structural token; `origin` maps its characters to the prompt's."""

    text: str
    token_id: int | None
    origin: list[int]


class ParsedPrompt(NamedTuple):
    """A prompt taken apart: its pieces, the characters where questions begin, the (start, end) of its answers."""

    pieces: list[Piece]
    question_starts: list[int]
    answers: list[tuple[int, int]]


class PromptText:
    """What has a meaning in a prompt, for one tokenizer: finds it, and takes the meaning from a user's text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Longest first, so that no token hides behind one that it begins with.
        tokens = sorted({IMAGE_TOKEN, QUERY_TOKEN, *tokenizer.all_special_tokens}, key=len, reverse=True)
        written = "|".join(map(re.escape, tokens))
        structure = f"(?P<escaped>{ESCAPE}.)|(?P<start>{QUESTION_START})|(?P<token>{written})"
        self._structure = re.compile(structure, re.DOTALL)
        openings = {token[0] for token in tokens} | {ESCAPE, QUESTION_START}
        self._opening = re.compile("|".join(re.escape(character) for character in sorted(openings)))

    def escape(self, text: str) -> str:
        """Mark every character that could open something with a meaning, so that it opens nothing.

        Not only those that do: texts are joined when they are written down, and two halves may make a placeholder.
        """
        return self._opening.sub(lambda match: ESCAPE + match.group(), text)

    def take_apart(self, prompt: str, answers: list[tuple[int, int]]) -> ParsedPrompt:
        """Split a written prompt at its structural tokens, undo escapes, and note where questions begin."""
        pieces: list[Piece] = []
        starts: list[int] = []
        text, place = "", 0
        origin: list[int] = []

        def add_text(run: str, position: int) -> None:
            nonlocal text
            text += run
            origin.extend(range(position, position + len(run)))

        for match in self._structure.finditer(prompt):
            add_text(prompt[place : match.start()], place)
            place = match.end()
            if match.lastgroup == "escaped":
                add_text(match.group()[1:], match.start() + 1)
            elif match.lastgroup == "start":
                starts.append(match.start())
            else:
                if text:
                    pieces.append(Piece(text, None, origin))
                    text, origin = "", []
                token_id = self._tokenizer.convert_tokens_to_ids(match.group())
                pieces.append(Piece(match.group(), token_id, [match.start()]))
        add_text(prompt[place:], place)
        if text:
            pieces.append(Piece(text, None, origin))
        return ParsedPrompt(pieces, starts, answers)


class QuestionFinder:
    """Where the question of the turn being read begins: at its mark; unmarked, where the published prompt has it."""

    def __init__(self, marks: list[int]) -> None:
        self.marks = list(marks)
        self.marked: int | None = None
        self.unmarked = 0
        self.after_image = False

    def text(self, piece: Piece, ends: list[int], first: int) -> None:
        """Look for a mark inside a text piece whose tokens end at `ends` and stand from position `first`."""
        if self.after_image and piece.text.startswith("\n"):
            self.unmarked = first + sum(end <= 1 for end in ends)
        elif not self.after_image and piece.text.startswith(USER_TAG):
            self.unmarked = first + sum(end <= len(USER_TAG) for end in ends)
        self.after_image = False
        while self.marks and self.marks[0] <= piece.origin[-1] + 1:
            mark = self.marks.pop(0)
            if self.marked is None:
                self.marked = first + sum(piece.origin[max(end - 1, 0)] < mark for end in ends)

    def structure(self, position: int, *, is_image: bool) -> None:
        """A structural token was passed; the next text begins at `position`."""
        self.unmarked, self.after_image = position, is_image

    def end(self, position: int) -> int:
        """Where the question begins whose queries stand at `position`; the next one is looked for from here."""
        start = self.unmarked if self.marked is None else self.marked
        self.marked = None
        return min(start, position)
