"""`conversations` or `messages`: LLaVA's and ShareGPT's from and value; OpenAI's, TRL's, Qwen's role and content.

In: a record whose field holds a list of turns, or that list as JSON text. A turn's content is a text, or a list of
parts (`parts.py`); pictures stand in it, in fields of their own, or are MiniCPM's (`numbered.py`).
"""

from __future__ import annotations

from typing import Any

from flashsloth.media.limits import shown
from flashsloth.training.data.layouts.fields import Said, list_in, pictures_named, system_turn
from flashsloth.training.data.layouts.numbered import NumberedPictures, is_numbered
from flashsloth.training.data.layouts.parts import PartsReader
from flashsloth.training.data.sample import BadSampleError

FIELDS = ("conversations", "messages", "conversation")
SHAREGPT, MESSAGES = "conversations of from and value", "messages of role and content"
PARTS, MINICPM = "messages with content in parts", "MiniCPM's conversations"
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
EXPECTED_ROLES = "human, user, gpt, assistant, system"
KEYS = (("from", "value"), ("role", "content"))


def holds(record: dict[str, Any]) -> bool:
    """Whether a record is of this layout."""
    return bool(record.get("conversations") or record.get("messages") or record.get("conversation"))


def read(record: dict[str, Any]) -> Said:
    """Its turns and pictures."""
    field = next(field for field in FIELDS if record.get(field))
    raw = list_in(record, field, "turns")
    if not raw:
        raise BadSampleError(f"{field} is an empty list, expected turns", "no_conversation")
    if isinstance(record.get("image"), dict) and is_numbered(record["image"]):
        numbered = NumberedPictures(record["image"])
        said = [(role, numbered.content(role, text)) for role, text in said_in(raw)]
        return MINICPM, _with_system(record, said), numbered.pictures
    layout = SHAREGPT if isinstance(raw[0], dict) and raw[0].get("from") is not None else MESSAGES
    said = said_in(raw)
    pictures = pictures_named(record)
    if {type(content) for _, content in said} != {str}:
        reader = PartsReader(pictures)
        said = _joined(said)
        said = [(role, reader.content(content, place)) for place, (role, content) in enumerate(said)]
        return PARTS, _with_system(record, said), reader.pictures()
    return layout, _with_system(record, said), pictures


def said_in(raw: list[Any]) -> list[tuple[str, Any]]:
    """Turns as (role, content); the content is a text or has parts.

    Raises:
        BadSampleError: naming the first that is not.
    """
    return [_turn(turn, place) for place, turn in enumerate(raw)]


def _turn(turn: Any, place: int) -> tuple[str, Any]:
    if not isinstance(turn, dict):
        raise BadSampleError(f"turn {place} is {type(turn).__name__}, expected from and value or role and content")
    role_key, text_key = KEYS[0] if turn.get("from") is not None else KEYS[1]
    found = turn.get(role_key)
    role = ROLES.get(found) or ROLES.get(found.lower()) if isinstance(found, str) else None
    if role is None:
        said = shown(found) if isinstance(found, str) else type(found).__name__
        raise BadSampleError(f"turn {place} is from {said}, expected one of {EXPECTED_ROLES}")
    if len(turn) > len(KEYS[0]) and (turn.get("tool_calls") or turn.get("weight") == 0):
        what = "calls tools" if turn.get("tool_calls") else "has the weight 0"
        raise BadSampleError(f"turn {place} {what}, which is not supported: leave the sample out")
    content = turn.get(text_key)
    if not isinstance(content, (str, list, tuple, dict)):
        raise BadSampleError(f"turn {place} has {type(content).__name__} as its {text_key}, expected a text")
    return role, content


def _joined(said: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Messages of the user that follow one another as one turn: OpenAI's examples put the picture into its own."""
    turns: list[tuple[str, Any]] = []
    for role, content in said:
        if role == "user" and turns and turns[-1][0] == role:
            turns[-1] = (role, [*_parts(turns[-1][1]), *_parts(content)])
        else:
            turns.append((role, content))
    return turns


def _parts(content: Any) -> list[Any]:
    return list(content) if isinstance(content, (list, tuple)) else [content]


def _with_system(record: dict[str, Any], said: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The turns, with the system text of the record's own field in front unless they bring one."""
    return said if said and said[0][0] == "system" else [*system_turn(record), *said]
