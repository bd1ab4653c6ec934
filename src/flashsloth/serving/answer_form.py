"""The form that a client wants answers to have: plain text, JSON, or what a JSON schema describes.

In: `response_format` of a chat request, or `text.format` of a response's. Out: a JSON schema that is small enough to be
compiled in bounded time; or a refusal that names what is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from flashsloth.serving.api_error import invalid
from flashsloth.serving.openai_schema import SHOWN, shown

TEXT, JSON_OBJECT, JSON_SCHEMA = "text", "json_object", "json_schema"
SCHEMA_FIELDS = ("name", "description", "schema", "strict")

MOST_TEXT = 64 << 10
"""Characters of a schema's JSON."""
MOST_PARTS = 4000
"""Keys and items in a schema, in all: compiling takes their number's square, and 0.9 s for so many."""
MOST_DEPTH = 64
"""Of a schema's JSON; one level of an object's properties is two of JSON's."""
MOST_PATTERNS = 24
"""In a schema: whether two leave any text may take a second to find out."""
LARGEST_MULTIPLE = 20_000
"""Product of a schema's multipleOf, without decimal points: an automaton has so many states."""


def schema_of(asked: Any, param: str) -> Mapping[str, Any] | None:
    """The JSON schema that a form asks for; None where it is plain text.

    Both interfaces' shapes are taken: `{"type": "json_schema", "json_schema": {"name", "schema"}}` and
    `{"type": "json_schema", "name", "schema"}`.

    Raises:
        ApiError: 400 for anything else.
    """
    if asked is None:
        return None
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    if kind not in (TEXT, JSON_OBJECT, JSON_SCHEMA):
        found = f"of type {shown(kind)}" if isinstance(asked, Mapping) else type(asked).__name__
        raise invalid(f"{param} is {found}; expected type {TEXT}, {JSON_OBJECT} or {JSON_SCHEMA}", param)
    rest = {name: value for name, value in asked.items() if name != "type"}
    if kind == JSON_SCHEMA and param == "response_format":
        param, nested = f"{param}.{JSON_SCHEMA}", rest.pop(JSON_SCHEMA, None)
        _refuse_unknown(rest, (), "response_format")
        if not isinstance(nested, Mapping):
            raise invalid(f"{param} is {type(nested).__name__}; expected an object with name and schema", param)
        rest = dict(nested)
    _refuse_unknown(rest, SCHEMA_FIELDS if kind == JSON_SCHEMA else (), param)
    if kind != JSON_SCHEMA:
        return {"type": "object"} if kind == JSON_OBJECT else None
    if not isinstance(rest.get("name"), str) or not rest["name"]:
        raise invalid(f"{param}.name is {shown(rest.get('name'))}; expected a text", f"{param}.name")
    if rest.get("strict") not in (True, False, None):
        raise invalid(f"{param}.strict is {shown(rest['strict'])}; expected true or false", f"{param}.strict")
    schema = rest.get("schema", {})
    if not isinstance(schema, Mapping):
        raise invalid(f"{param}.schema is {type(schema).__name__}; expected a JSON schema", f"{param}.schema")
    return schema


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], param: str) -> None:
    for name in given:
        if name not in known:
            raise invalid(f"{param} has no field {shown(name)}: leave it out", f"{param}.{name[:SHOWN]}")


def checked_text(schema: Mapping[str, Any], param: str) -> str:
    """A schema's JSON, small enough to be compiled in bounded time.

    Raises:
        ApiError: 400 for a larger one.
    """
    parts, patterns, multiple = 0, 0, Decimal(1)
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        value, depth = left.pop()
        if not isinstance(value, Mapping | list):
            continue
        if depth > MOST_DEPTH:
            raise invalid(f"the schema is nested more than {MOST_DEPTH} deep: make it flatter", param)
        if isinstance(value, Mapping):
            if "x-guidance" in value:
                raise invalid("the schema has x-guidance, which this server does not take: leave it out", param)
            multiple *= _multiple(value.get("multipleOf"))
            patterns += ("pattern" in value) + len(value.get("patternProperties") or ())
        parts += len(value)
        left += ((one, depth + 1) for one in (value.values() if isinstance(value, Mapping) else value))
        for what, is_over in (
            (f"more than {MOST_PARTS:,} keys and items", parts > MOST_PARTS),
            (f"more than {MOST_PATTERNS} patterns", patterns > MOST_PATTERNS),
            (f"multipleOf of more than {LARGEST_MULTIPLE:,} in all", multiple > LARGEST_MULTIPLE),
        ):
            if is_over:
                raise invalid(f"the schema has {what}: make it smaller", param)
    text = json.dumps(schema)
    if len(text) > MOST_TEXT:
        raise invalid(f"the schema is {len(text):,} characters of JSON; expected at most {MOST_TEXT:,}", param)
    return text


def _multiple(value: Any) -> Decimal:
    """A number's digits without its decimal point and the zeros at its end: 12.50 is 125."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value == 0:
        return Decimal(1)  # llguidance says what is wrong with it
    digits = Decimal(repr(value)).normalize().as_tuple().digits
    return Decimal("".join(map(str, digits)))
