"""A record as it is in the wild becomes a conversation, or an error that says why it cannot.

In: a dict as LLaVA's files hold it, `{"id", "image"?, "conversations": [{"from", "value"}]}` and any other keys; or
`images` for several pictures, or `messages` with `role` and `content`. Out: messages as the processor takes them.

What the published files hold, and what becomes of it:
    one picture        its `<image>` moves to the front of its turn, as in the published code
    several pictures   each stands where its `<image>` stands
    no `<image>`       where pictures are named, they stand in front of the first turn
    no picture         a user's `<image>` stays text
    first turn "gpt"   left out, as in the published code (conversations that were cut into pieces begin so)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flashsloth.training.data.sample import BadSampleError

PLACEHOLDER = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TURN_KEYS = {"conversations": ("from", "value"), "messages": ("role", "content")}
PICTURE_KEYS = ("image", "images")

Turn = tuple[str, str]
Message = dict[str, Any]


def check_record(record: Any) -> dict[str, Any]:
    """Refuse what is no record."""
    if not isinstance(record, dict):
        raise BadSampleError(f"is {type(record).__name__}, expected an object", "unreadable_record")
    return record


def identity(record: Any) -> str | None:
    """A record's own id, if it has one."""
    found = record.get("id") if isinstance(record, dict) else None
    return None if found is None or isinstance(found, (dict, list)) else str(found)


def pictures_named(record: dict[str, Any]) -> list[Any]:
    """What stands under `image` or `images`, as a list; empty for none."""
    for key in PICTURE_KEYS:
        named = record.get(key)
        if named is not None:
            return list(named) if isinstance(named, (list, tuple)) else [named]
    return []


def turns_of(record: dict[str, Any]) -> list[Turn]:
    """The turns as (role, text), checked: a system text perhaps, then user and assistant in turn, each with text.

    Raises:
        BadSampleError: naming the turn.
    """
    key = next((key for key in TURN_KEYS if record.get(key)), None)
    if key is None:
        raise BadSampleError("has no conversations", "no_conversation")
    raw = record[key]
    if not isinstance(raw, (list, tuple)):
        raise BadSampleError(f"{key} is {type(raw).__name__}, expected a list of turns", "no_conversation")
    role_key, text_key = TURN_KEYS[key]
    turns = [_turn(turn, place, role_key, text_key) for place, turn in enumerate(raw)]
    return _alternating(turns)


def _turn(turn: Any, place: int, role_key: str, text_key: str) -> Turn:
    if not isinstance(turn, dict):
        raise BadSampleError(f"turn {place} is {type(turn).__name__}, expected {role_key} and {text_key}")
    role = ROLES.get(turn.get(role_key, ""))
    if role is None:
        raise BadSampleError(f"turn {place} is from {turn.get(role_key)!r}, expected one of {', '.join(ROLES)}")
    text = turn.get(text_key)
    if not isinstance(text, str):
        raise BadSampleError(f"turn {place} has {type(text).__name__} as its {text_key}, expected a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadSampleError(f"turn {place} holds half a character at {error.start}: write the file anew") from error
    return role, text


def _alternating(turns: list[Turn]) -> list[Turn]:
    """The turns from the first of the user's, user and assistant in turn to an answer; a system text stays in front."""
    system = turns[:1] if turns[0][0] == "system" else []
    rest = turns[len(system) :]
    cut = 1 if rest and rest[0][0] == "assistant" else 0
    for place, (role, _) in enumerate(rest[cut:]):
        expected = ("user", "assistant")[place % 2]
        if role != expected:
            raise BadSampleError(f"turn {len(system) + cut + place} is the {role}'s, expected the {expected}'s")
    kept = rest[cut:]
    if not kept:
        raise BadSampleError("holds no question, expected the user's turn and an answer")
    if len(kept) % 2:
        raise BadSampleError("ends with a question, expected the answer to it")
    if not any(text.strip() for role, text in kept if role == "assistant"):
        raise BadSampleError("has empty answers alone, nothing to learn from", "nothing_supervised")
    return system + kept


def messages_of(
    turns: Sequence[Turn], pictures: Sequence[Any], find: Callable[[Any], Any] | None = None
) -> list[Message]:
    """Put the pictures where they belong.

    Args:
        turns: from :func:`turns_of`.
        pictures: what the record names, in order.
        find: makes of each what the processor opens (a path, bytes); None leaves it as it is.

    Raises:
        BadSampleError: if placeholders and pictures differ in number; what `find` raises.
    """
    placed = sum(text.count(PLACEHOLDER) for role, text in turns if role == "user")
    if pictures and placed not in (0, len(pictures)):
        raise BadSampleError(
            f"says {PLACEHOLDER} {placed} times but names {len(pictures)} pictures, expected as many",
            "placeholder_mismatch",
        )
    found = [{"type": "image", "image": picture if find is None else find(picture)} for picture in pictures]
    waiting = iter(found)
    front = found if not placed else []
    messages: list[Message] = []
    for role, text in turns:
        if role != "user":
            messages.append({"role": role, "content": text})
        elif not pictures:
            messages.append({"role": role, "content": [{"type": "text", "text": text}]})
        elif len(pictures) == 1 and PLACEHOLDER in text:
            words = text.replace(PLACEHOLDER, "").strip()
            messages.append({"role": role, "content": [next(waiting), {"type": "text", "text": words}]})
        else:
            messages.append({"role": role, "content": [*front, *_interleaved(text, waiting)]})
            front = []
    return messages


def _interleaved(text: str, pictures: Any) -> list[dict[str, Any]]:
    """The parts of a text with a picture at each of its placeholders."""
    runs = text.split(PLACEHOLDER)
    parts: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        words = run.strip() if len(runs) == 1 else run.strip("\n")
        if words.strip() or len(runs) == 1:
            parts.append({"type": "text", "text": words})
        if number < len(runs) - 1:
            parts.append(next(pictures))
    return parts


__all__ = ["PLACEHOLDER", "check_record", "identity", "messages_of", "pictures_named", "turns_of"]
