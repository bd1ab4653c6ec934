"""Fields that records of every layout share: pictures, a system text, an id."""

from __future__ import annotations

import json
from typing import Any

from flashsloth.media.limits import shown
from flashsloth.training.data.sample import BadSampleError

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
_PICTURE_FIELDS = frozenset(PICTURE_FIELDS)
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
    for field in () if _PICTURE_FIELDS.isdisjoint(record) else PICTURE_FIELDS:
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
        found = record.get(field)
        if found is None or found == "":
            continue
        return [("system", text_of(found, field))]
    return []


def text_of(value: Any, where: str) -> str:
    """A text, or a BadSampleError that says where something else stands."""
    if not isinstance(value, str):
        raise BadSampleError(f"{where} is {type(value).__name__}, expected a text")
    return value


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
