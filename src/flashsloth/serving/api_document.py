"""What `/openapi.json` says: the body that each route takes, and every status that it may reply with.

In: a route's kind of body. Out: the parts of the document that FastAPI cannot know, since bodies are read by
`openai_schema.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from flashsloth.serving.openai_schema import Body

SCHEMAS = "#/components/schemas/"
JSON, EVENTS = "application/json", "text/event-stream"
ERROR = "Error"
EVERYWHERE = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
WITH_BODY = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.GATEWAY_TIMEOUT,
)
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def takes(kind: type[Body], *, streams: bool = False) -> dict[str, Any]:
    """Of a route with a body: what `add_api_route` is told."""
    content = {JSON: {"schema": {"type": "object"}}, **({EVENTS: {}} if streams else {})}
    body = {"required": True, "content": {JSON: {"schema": {"$ref": SCHEMAS + kind.__name__}}}}
    answered = {HTTPStatus.OK.value: {"description": "The reply", "content": content}}
    return {"openapi_extra": {"requestBody": body}, "responses": {**answered, **refusals(*EVERYWHERE, *WITH_BODY)}}


def refusals(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Statuses that come with an error."""
    content = {JSON: {"schema": {"$ref": SCHEMAS + ERROR}}}
    return {one.value: {"description": one.phrase, "content": content} for one in statuses}


def document(app: FastAPI, kinds: Sequence[type[Body]]) -> None:
    """Let the document have the bodies' schemas."""

    def made() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            template = SCHEMAS + "{model}"
            _, bodies = models_json_schema([(kind, "validation") for kind in kinds], ref_template=template)
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            schemas.update({ERROR: ERROR_SCHEMA, **bodies["$defs"]})
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = made  # type: ignore[method-assign]
