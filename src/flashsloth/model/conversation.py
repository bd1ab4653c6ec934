"""A conversation as its user gives it: checked, its texts escaped, its pictures opened.

In: messages, each `{"role": ..., "content": text or parts}`, a part being `{"type": "text", "text": ...}` or
`{"type": "image", "image": PIL, path, bytes or data URL}`.
Out: the same messages, safe to be written down by a chat template; and the pictures, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from PIL import Image

from flashsloth.media import open_picture

PICTURE_KEYS = ("image", "path", "url", "base64")
"""Where a part of type image may keep its picture."""
PART_TYPES = ("image", "text")

Message = dict[str, Any]


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


__all__ = ["check_conversation", "pictures_of", "plain_messages", "with_texts"]
