"""Counting over HTTP: the ids are those of the prompt that the model reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from served import EXAMPLES, MODEL, data_url, nano, post, refusal, serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as address:
        yield address


def test_a_text(url: str) -> None:
    text = "What color is the circle? 尺寸"
    reply = post(f"{url}/tokenize", {"model": MODEL, "prompt": text, "return_token_strs": True}).json()
    assert nano().processor.tokenizer.decode(reply["tokens"]) == text
    assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
    assert reply["max_model_len"] == 1024
    assert post(f"{url}/tokenize", {"prompt": ""}).json()["tokens"] == []


def test_a_conversation_is_counted_as_it_is_answered(url: str) -> None:
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": data_url("shapes.png")}},
        {"type": "text", "text": "What color is the circle?"},
    ]
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": parts}]
    counted = post(f"{url}/tokenize", {"messages": messages}).json()
    request = nano().request(EXAMPLES / "shapes.png", "What color is the circle?", system="Be short.")
    assert counted["tokens"] == request.prompt.input_ids
    answered = post(f"{url}/v1/chat/completions", {"model": MODEL, "messages": messages}).json()
    assert answered["usage"]["prompt_tokens"] == counted["count"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, 400, "prompt"),
        ({"prompt": ["a"]}, 400, "prompt"),
        ({"prompt": "a", "model": "other"}, 404, "model"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": "a"}], "add_generation_prompt": False},
            400,
            "add_generation_prompt",
        ),
        ({"prompt": "a", "colour": 1}, 400, "colour"),
    ],
)
def test_mistakes_are_named(body: dict[str, Any], status: int, param: str, url: str) -> None:
    assert refusal(post(f"{url}/tokenize", body)) == (status, param)
