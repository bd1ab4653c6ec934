"""OpenAI's own specification: checks replies and events against its schemas, and holds its example requests.

The file is not part of this repository; it is looked for beside it, as `shared/openai/openapi.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

FILE = Path(__file__).parents[3] / "shared" / "openai" / "openapi.json"
NAME = "urn:openai"
OWN_FIELDS = {"flashsloth"}
"""That replies have beside the specification's."""
BODY = re.compile(r"-d '(\{.*\})'", re.DOTALL)

needs_specification = pytest.mark.skipif(not FILE.is_file(), reason=f"OpenAI's specification is not at {FILE}")


class Example(NamedTuple):
    """A request that the specification shows."""

    path: str
    title: str
    body: dict[str, Any]


@cache
def specification() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return loaded


@cache
def validator(name: str) -> Draft202012Validator:
    """Of one of its schemas."""
    resource = Resource.from_contents(specification(), default_specification=DRAFT202012)
    registry = Registry().with_resource(NAME, resource)
    return Draft202012Validator({"$ref": f"{NAME}#/components/schemas/{name}"}, registry=registry)


@cache
def event_names() -> dict[str, str]:
    """Type of a response's event -> its schema."""
    schemas = specification()["components"]["schemas"]
    names = [one["$ref"].rpartition("/")[2] for one in schemas["ResponseStreamEvent"]["anyOf"]]
    return {kind: name for name in names for kind in schemas[name]["properties"]["type"]["enum"]}


@cache
def fields_of(name: str) -> frozenset[str]:
    """All fields that a schema's objects may have, at their top."""
    return frozenset(_fields(specification()["components"]["schemas"][name]))


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        yield from _fields(specification()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    yield from schema.get("properties", {})
    for part in schema.get("allOf", []):
        yield from _fields(part)


def check(name: str, value: Any) -> None:
    """Fail where a reply is not what the specification says, to the letter, or has fields that it does not know."""
    problems = [f"{error.json_path}: {error.message[:300]}" for error in validator(name).iter_errors(value)]
    assert not problems, f"no {name}: {problems}"
    assert not set(value) - fields_of(name) - OWN_FIELDS, f"{name} has no such fields"


def check_event(event: dict[str, Any]) -> None:
    """Fail where a response's event is not what the specification says."""
    check(event_names()[event["type"]], event)
    if "response" in event:
        check("Response", event["response"])


def examples() -> list[Example]:
    """The specification's own requests, as its curl lines have them; none without the file."""
    if not FILE.is_file():
        return []
    found = []
    for path in ("/chat/completions", "/responses"):
        for example in specification()["paths"][path]["post"]["x-oaiMeta"]["examples"]:
            body = BODY.search(example["request"]["curl"])
            assert body is not None, example["title"]
            found.append(Example(path, example["title"], json.loads(body[1])))
    return found
