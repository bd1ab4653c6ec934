"""What is refused is let go of at once: an error that held its request would keep its pictures until a collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from running import wait_for
from served import MODEL, data_url, post, serving

from flashsloth.errors import FlashSlothError

BAD = "data:image/png;base64,AAAA"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as address:
        yield f"{address}/v1"


@pytest.fixture
def without_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def chat(*urls: str, **fields: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": MODEL, "messages": [{"role": "user", "content": parts}], "max_tokens": 1, **fields}


def errors() -> list[FlashSlothError]:
    """Of this project, that are there."""
    return [one for one in gc.get_objects() if isinstance(one, FlashSlothError)]


@pytest.mark.parametrize(
    "body",
    [
        chat(BAD),
        chat(data_url("shapes.png"), BAD),
        chat(data_url("shapes.png"), stream=True, n=0),
        chat(data_url("shapes.png"), colour=1),
        chat("file:///etc/passwd"),
        chat(*[BAD] * 9),
        chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"if": True}}}),
        {"model": MODEL, "messages": [{"role": "user", "content": "a" * 100_000}]},
        {"model": MODEL, "messages": [{"role": "user", "content": "a " * 2000}]},
    ],
    ids=["picture", "second", "n", "field", "address", "many", "form", "text", "prompt"],
)
@pytest.mark.usefixtures("without_collections")
def test_no_error_outlives_its_request(body: dict[str, Any], url: str) -> None:
    before = errors()  # of other tests, which something holds
    assert post(f"{url}/chat/completions", body).status_code == 400
    wait_for(lambda: not [one for one in errors() if not any(one is known for known in before)])
