"""The layouts that records are found in: one reader a file, each told by its fields.

turns.py            `conversations` or `messages`, of from and value or of role and content; a system text beside them
parts.py            content as a list of parts: words and pictures
numbered.py         MiniCPM's pictures, which are named by their marks
texts.py            `texts` of user and assistant, beside `images` (FineVision, The Cauldron)
question_answer.py  a question and an answer in two fields
caption.py          a picture and what it shows
fields.py           fields that all of them share: pictures, the system text, the id

In: a record, as its file has it. Out: a `Conversation`. What a file alone can tell (COCO, VQAv2: pictures in one list,
what is said of them in another) is put together into records of these layouts in `coco_data.py` and `vqa_data.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flashsloth.training.data.conversation import Conversation, conversation_of
from flashsloth.training.data.foreign import UNSEEN_FIELDS, check_fields
from flashsloth.training.data.layouts import caption, question_answer, texts, turns
from flashsloth.training.data.layouts.fields import PICTURE_FIELDS, SYSTEM_FIELDS, identity
from flashsloth.training.data.sample import BadSampleError

READERS = (turns, texts, question_answer, caption)
"""In the order in which they are asked: the first whose fields are there reads the record."""
SHOWN_FIELDS = 8
FIELDS = tuple(
    dict.fromkeys(
        ("id", *PICTURE_FIELDS, *SYSTEM_FIELDS, *UNSEEN_FIELDS, *(f for reader in READERS for f in reader.FIELDS))
    )
)
"""Every field that some reader looks at: what is worth reading of a table."""


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
    for reader in READERS:
        if reader.holds(record):
            return conversation_of(*reader.read(record))
    raise BadSampleError(f"has no conversations, nor another layout: {_fields(record)}", "no_conversation")


def could_be(fields: Iterable[str]) -> bool:
    """Whether records with these fields could be of some layout."""
    record = {field.lower(): ["something"] for field in fields}
    return any(reader.holds(record) for reader in READERS)


def is_spoken(record: dict[str, Any]) -> bool:
    """Whether a record is of a layout by itself, without what lies beside it."""
    return any(reader.holds(record) for reader in READERS if reader is not caption)


def _fields(record: dict[str, Any]) -> str:
    """A record's fields for an error."""
    names = [str(key)[:20] for key in record]
    more = f" and {len(names) - SHOWN_FIELDS} more" if len(names) > SHOWN_FIELDS else ""
    return f"its fields are {names[:SHOWN_FIELDS]}{more}" if names else "it has no fields"


__all__ = ["FIELDS", "READERS", "check_record", "could_be", "identity", "is_spoken", "read_record"]
