"""The layouts that records are found in, each known by its fields: a record -> what it says, a `Conversation`.

turns             `conversations` or `messages`, of from and value (LLaVA, ShareGPT) or of role and content (OpenAI,
                  TRL, Qwen), also as JSON text; a turn's content is a text, or more (`turn_content.py`)
texts             `texts` of user and assistant, beside `images`: FineVision, The Cauldron
question, answer  in two fields, beside the picture: tables, VQAv2's rows, problem and answer, Alpaca's, TRL's prompt
                  and completion, which may be lists of messages
caption           of a picture: it answers a request that is always the same. The alignment stage writes no words of the
                  user's, so there it is LLaVA's first stage: picture and caption

Beside any of them: pictures, a system text, an id. What a file alone can tell (COCO, VQAv2: pictures in one list, what
is said of them in another) is put together into records of these layouts in `json_data.py`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from flashsloth.media.limits import shown
from flashsloth.training.data.conversation import Conversation, conversation_of
from flashsloth.training.data.refused_files import UNSEEN_FIELDS, check_fields
from flashsloth.training.data.sample import BadSampleError
from flashsloth.training.data.turn_content import NumberedPictures, PartsReader, is_numbered, text_of

PICTURE_FIELDS = (
    "image",
    "images",
    "image_path",
    "image_paths",
    "img",
    "img_path",
    "image_url",
    "file_name",
    "jpg",
    "png",
)
"""Where a record may name its pictures; the first that is there counts."""
SYSTEM_FIELDS = ("system", "system_prompt")
ID_FIELDS = ("id", "question_id", "__key__")
MOST_OF_AN_ID = 200
"""Characters of an id that are kept."""

Said = tuple[str, list[tuple[str, Any]], list[Any]]
"""What a reader finds: the layout in words, the turns as (role, content), the pictures."""


def identity(record: Any) -> str | None:
    """A record's own id, if it has one, as text that can be written anywhere."""
    if not isinstance(record, dict):
        return None
    for field in ID_FIELDS:
        found = record.get(field)
        if found is not None and not isinstance(found, (dict, list)):
            return str(found)[:MOST_OF_AN_ID].encode("utf-8", "backslashreplace").decode("utf-8")
    return None


def pictures_named(record: dict[str, Any]) -> list[Any]:
    """What stands in the first field for pictures, as a list; empty for none."""
    for field in PICTURE_FIELDS:
        named = record.get(field)
        if isinstance(named, str) and named.startswith('["'):
            named = _listed(named)
        if named is not None:
            return list(named) if isinstance(named, (list, tuple)) else [named]
    return []


def _listed(text: str) -> Any:
    """A list that was written down as JSON text; the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def system_turn(record: dict[str, Any]) -> list[tuple[str, Any]]:
    """The turn of a system text that stands in a field of its own, where there is one."""
    for field in SYSTEM_FIELDS:
        if record.get(field) not in (None, ""):
            return [("system", text_of(record[field], field))]
    return []


def list_in(record: dict[str, Any], field: str, of: str) -> list[Any]:
    """A field's list; one that was written down as JSON text is read.

    Raises:
        BadSampleError: if it is neither.
    """
    value = record[field]
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            raise BadSampleError(
                f"{field} is str, expected a list of {of}, but found {shown(value)}", "no_conversation"
            )
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadSampleError(f"{field} cannot be read as JSON: {error}", "unreadable_record") from error
    if not isinstance(value, (list, tuple)):
        raise BadSampleError(f"{field} is {type(value).__name__}, expected a list of {of}", "no_conversation")
    return list(value)


TURNS_FIELDS = ("conversations", "messages", "conversation")
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


def _read_turns(record: dict[str, Any]) -> Said:
    """Its turns and pictures."""
    field = next(field for field in TURNS_FIELDS if record.get(field))
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
            parts = [list(one) if isinstance(one, (list, tuple)) else [one] for one in (turns[-1][1], content)]
            turns[-1] = (role, parts[0] + parts[1])
        else:
            turns.append((role, content))
    return turns


def _with_system(record: dict[str, Any], said: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The turns, with the system text of the record's own field in front unless they bring one."""
    return said if said and said[0][0] == "system" else [*system_turn(record), *said]


def _read_texts(record: dict[str, Any]) -> Said:
    """Its turns and pictures."""
    said = system_turn(record)
    for place, pair in enumerate(list_in(record, "texts", "user and assistant")):
        if not isinstance(pair, dict):
            raise BadSampleError(f"text {place} is {type(pair).__name__}, expected user and assistant")
        said += [(role, text_of(pair.get(role), f"{role} of text {place}")) for role in ("user", "assistant")]
    return "texts of user and assistant", said, pictures_named(record)


QUESTIONS = ("question", "problem", "query", "instruction", "prompt")
ANSWERS = ("answer", "multiple_choice_answer", "answers", "solution", "response", "completion", "output", "label")
BESIDE = "input"
"""Alpaca's: what the instruction is about."""
NOT_LAID_OUT = ("choices", "options", "history")
"""Fields without which the question is another one."""
QUESTION_ANSWER_FIELDS = (*QUESTIONS, *ANSWERS, BESIDE, *NOT_LAID_OUT)


def _holds_question_answer(record: dict[str, Any]) -> bool:
    """Whether a record is of this layout."""
    return _first(record, QUESTIONS) is not None and _first(record, ANSWERS) is not None


def _read_question_answer(record: dict[str, Any]) -> Said:
    """Its turns and pictures."""
    asked, answered = str(_first(record, QUESTIONS)), str(_first(record, ANSWERS))
    name = f"{asked} and {answered}"
    for field in NOT_LAID_OUT:
        if record.get(field):
            raise BadSampleError(f"has {field} beside its {asked}: write them into the {asked}, or as messages")
    if isinstance(record[asked], (list, tuple)):
        return _messages(record, name, asked, answered)
    question = text_of(record[asked], asked)
    if not question.strip():
        raise BadSampleError(f"has an empty {asked}")
    if record.get(BESIDE) and asked == "instruction":
        question = f"{question}\n{text_of(record[BESIDE], BESIDE)}"
    said = [*system_turn(record), ("user", question), ("assistant", _answer(record[answered], answered))]
    return name, said, pictures_named(record)


def _messages(record: dict[str, Any], name: str, asked: str, answered: str) -> Said:
    """TRL's conversational prompt and completion."""
    said = said_in(list_in(record, asked, "messages"))
    answer = record[answered]
    said += [("assistant", answer)] if isinstance(answer, str) else said_in(list_in(record, answered, "messages"))
    reader = PartsReader(pictures_named(record))
    turns = [(role, reader.content(content, place)) for place, (role, content) in enumerate(said)]
    return f"{name}, of messages", turns, reader.pictures()


def _first(record: dict[str, Any], fields: tuple[str, ...]) -> str | None:
    """The first of the fields that holds something; an empty answer counts, as there may be a question without one."""
    return next((field for field in fields if record.get(field) is not None), None)


def _answer(value: Any, field: str) -> str:
    if isinstance(value, dict) and isinstance(value.get("answer"), str):
        return value["answer"]
    if isinstance(value, (list, tuple)):
        if not value or any(isinstance(one, (list, tuple)) for one in value):
            raise BadSampleError(f"{field} is {'a list of lists' if value else 'empty'}, expected an answer")
        return Counter(_answer(one, field) for one in value).most_common(1)[0][0]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    return text_of(value, field)


CAPTION_FIELDS = ("caption", "captions", "text", "txt")
REQUEST = "Provide a brief description of the given image."
"""One of those that LLaVA's first stage has beside its captions."""


def _holds_caption(record: dict[str, Any]) -> bool:
    """Whether a record is of this layout: a caption needs a picture."""
    return any(record.get(field) is not None for field in CAPTION_FIELDS) and bool(pictures_named(record))


def _read_caption(record: dict[str, Any]) -> Said:
    """Its turns and pictures."""
    field = next(field for field in CAPTION_FIELDS if record.get(field) is not None)
    caption = record[field]
    if isinstance(caption, (list, tuple)):
        if not caption:
            raise BadSampleError(f"{field} is empty, expected a caption", "nothing_supervised")
        caption = caption[0]
    said = [*system_turn(record), ("user", REQUEST), ("assistant", text_of(caption, field).strip())]
    return f"picture and {field}", said, pictures_named(record)


class Layout(NamedTuple):
    """A layout: the fields that it looks at, whether a record is of it, and what such a record says."""

    fields: tuple[str, ...]
    holds: Callable[[dict[str, Any]], bool]
    read: Callable[[dict[str, Any]], Said]


CAPTION = Layout(CAPTION_FIELDS, _holds_caption, _read_caption)
LAYOUTS = (
    Layout(TURNS_FIELDS, lambda record: any(record.get(field) for field in TURNS_FIELDS), _read_turns),
    Layout(("texts",), lambda record: bool(record.get("texts")), _read_texts),
    Layout(QUESTION_ANSWER_FIELDS, _holds_question_answer, _read_question_answer),
    CAPTION,
)
"""In the order in which they are asked: the first whose fields are there reads the record."""
SHOWN_FIELDS = 8
FIELDS = tuple(
    dict.fromkeys(
        ("id", *PICTURE_FIELDS, *SYSTEM_FIELDS, *UNSEEN_FIELDS, *(f for layout in LAYOUTS for f in layout.fields))
    )
)
"""Every field that some layout looks at: what is worth reading of a table."""


def check_record(record: Any) -> dict[str, Any]:
    """A record with its fields in lower case, as layouts know them; refuses what is no record."""
    if not isinstance(record, dict):
        raise BadSampleError(f"is {type(record).__name__}, expected an object", "unreadable_record")
    names = "".join(record)
    if names == names.lower():
        return record
    return {name.lower(): value for name, value in record.items()} | {n: v for n, v in record.items() if n.islower()}


def read_record(record: Any) -> Conversation:
    """What a record says, by the layout that its fields show.

    Raises:
        BadSampleError: if they show none, or what they hold cannot be learned from. Nothing else, whatever it holds.
    """
    record = check_record(record)
    check_fields(record)
    for layout in LAYOUTS:
        if layout.holds(record):
            return conversation_of(*layout.read(record))
    raise BadSampleError(f"has no conversations, nor another layout: {_fields(record)}", "no_conversation")


def could_be(fields: Iterable[str]) -> bool:
    """Whether records with these fields could be of some layout."""
    record = {field.lower(): ["something"] for field in fields}
    return any(layout.holds(record) for layout in LAYOUTS)


def is_spoken(record: dict[str, Any]) -> bool:
    """Whether a record is of a layout by itself, without what lies beside it."""
    return any(layout.holds(record) for layout in LAYOUTS if layout is not CAPTION)


def _fields(record: dict[str, Any]) -> str:
    """A record's fields for an error."""
    names = [str(key)[:20] for key in record]
    more = f" and {len(names) - SHOWN_FIELDS} more" if len(names) > SHOWN_FIELDS else ""
    return f"its fields are {names[:SHOWN_FIELDS]}{more}" if names else "it has no fields"
