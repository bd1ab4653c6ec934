"""Whatever is sent to whichever route, as its own document has it or not: no fault of ours, no status but documented.

Bodies are made from `/openapi.json` by schemathesis, to the letter and against it. A third are sent as they are,
a third have the model's name, known roles and a real picture in the places that they have for them, and a third
are some fields added to a good request. So they come further than the door.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from running import JSON
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import MODEL, PATIENCE, data_url, nano, serving

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
FEW, MANY = 25, 1000
"""Examples of each operation and kind, in CI and in full."""
OPERATIONS = (
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/systemone"),
    ("POST", "/tokenize"),
    ("GET", "/v1/responses/{response_id}"),
    ("DELETE", "/v1/responses/{response_id}"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
)
LIKELY: dict[str, Any] = {
    "model": st.just(MODEL),
    "role": st.sampled_from(["system", "developer", "user", "assistant"]),
    "type": st.sampled_from(["text", "image_url", "input_text", "input_image", "message", "choice", "noul", "score"]),
    "image_url": st.sampled_from([{"url": data_url("word.png")}, data_url("word.png")]),
    "images": st.just([data_url("word.png")]),
    "max_tokens": st.integers(1, 4),
    "max_completion_tokens": st.none(),
    "max_output_tokens": st.integers(1, 4),
    "n": st.integers(1, 3),
}
"""What a field holds that is to be taken."""
PICTURE = data_url("word.png")
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}],
    },
    "/v1/responses": {"model": MODEL, "input": [{"role": "user", "content": "What is written?"}]},
    "/v1/systemone": {
        "model": MODEL,
        "images": [PICTURE],
        "questions": {"a": {"type": "choice", "instructions": "Which?", "criteria": {"b": None, "c": "d"}}},
    },
    "/tokenize": {"prompt": "What is written?"},
}
AS_MADE, LIKELY_VALUES, ADDED = "as made", "likely values", "added to a good one"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(max_tokens=4) as address:
        yield address


@pytest.fixture(scope="module")
def schema(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def made_likely(value: Any, draw: Any) -> Any:
    """A body with values that are taken, in the places that it has for them."""
    if isinstance(value, list):
        return [made_likely(one, draw) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: draw(LIKELY[name]) if name in LIKELY else made_likely(one, draw) for name, one in value.items()}


def fuzz(method: str, path: str, mode: GenerationMode, examples: int, url: str, schema: Any) -> None:
    """So many requests of one operation."""
    operation = schema[path][method]
    phases = (Phase.generate, Phase.shrink)
    health = list(HealthCheck)

    @settings(max_examples=examples, deadline=None, derandomize=True, phases=phases, suppress_health_check=health)
    @given(
        case=operation.as_strategy(generation_mode=mode),
        sent=st.sampled_from([AS_MADE, LIKELY_VALUES, ADDED]),
        data=st.data(),
    )
    def run(case: Any, sent: str, data: Any) -> None:
        if sent != AS_MADE and isinstance(case.body, dict):
            case.body = made_likely(case.body, data.draw)
        if sent == ADDED and isinstance(case.body, dict) and path in GOOD:
            names = sorted(set(case.body) - set(GOOD[path]))
            added = data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else []
            case.body = {**GOOD[path], **{name: case.body[name] for name in added}}
        response = case.call(base_url=url, timeout=PATIENCE, headers={"Content-Type": JSON["Content-Type"]})
        case.validate_response(response, checks=CHECKS)

    run()
    nano().engine_thread.check()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_requests_to_the_letter(method: str, path: str, url: str, schema: Any) -> None:
    fuzz(method, path, GenerationMode.POSITIVE, FEW, url, schema)


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[0] == "POST"])
def test_requests_against_the_letter(method: str, path: str, url: str, schema: Any) -> None:
    fuzz(method, path, GenerationMode.NEGATIVE, FEW, url, schema)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_thousand_requests(method: str, path: str, mode: GenerationMode, url: str, schema: Any) -> None:
    if mode == GenerationMode.NEGATIVE and method != "POST":
        return
    fuzz(method, path, mode, MANY, url, schema)


def test_every_operation_is_asked(schema: Any) -> None:
    documented = {(one.ok().method.upper(), one.ok().path) for one in schema.get_all_operations()}
    assert documented == set(OPERATIONS)
