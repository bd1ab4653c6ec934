"""Bodies are read in bounded time, and what is wrong with one is said where it is, in a line.

What holds too many values is refused before each of them becomes an object.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from flashsloth.serving.api_error import ApiError
from flashsloth.serving.openai_schema import MOST_VALUES, ChatRequest, read_body

MIB = 1 << 20


def body(content: Any) -> bytes:
    return json.dumps({"model": "nano", "messages": [{"role": "user", "content": content}]}).encode()


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "a"}] * (MOST_VALUES // 2 + 1),
        [1] * MOST_VALUES,
        ['"\\'] * MOST_VALUES,
        [""] * (6 * MIB),
    ],
    ids=["parts", "numbers", "escapes", "texts"],
)
def test_too_many_values_are_refused_before_they_are_read(content: Any) -> None:
    sent = body(content)
    began = time.process_time()
    with pytest.raises(ApiError, match="more than 50,000 values") as refused:
        read_body(ChatRequest, sent)
    assert refused.value.status == 400
    assert time.process_time() - began < 1  # read, six million texts would take many


def test_commas_in_texts_are_not_values() -> None:
    text = ',"\\,\\"' * MOST_VALUES
    assert read_body(ChatRequest, body(text)).messages[0].content == text
    parts = [{"type": "text", "text": "a,b"}] * (MOST_VALUES // 2 - 2)
    assert len(read_body(ChatRequest, body(parts)).messages[0].content or ()) == len(parts)


@pytest.mark.parametrize(
    ("given", "message", "param"),
    [
        ({"messages": []}, "messages is []: it should have at least 1 item", "messages"),
        (
            {"flashsloth": {"atention": True}},
            "unknown parameter 'flashsloth.atention': leave it out",
            "flashsloth.atention",
        ),
        (
            {"flashsloth": {"attention": "all"}},
            "flashsloth.attention is 'all': it should be a valid boolean, or be 'sap' or 'embq'",
            "flashsloth.attention",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text is 5: it should be a valid string",
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content is 5: it should be a valid string, or be a valid array",
            "messages[0].content",
        ),
        ({"temperature": 3}, "temperature is 3: it should be less than or equal to 2", "temperature"),
        ({"top_p": "x", "top": 1}, "top_p is 'x': it should be a valid number", "top_p"),
    ],
)
def test_a_mistake_is_named_where_it_is(given: dict[str, Any], message: str, param: str) -> None:
    sent = {"model": "nano", "messages": [{"role": "user", "content": "hi"}], **given}
    with pytest.raises(ApiError) as refused:
        read_body(ChatRequest, json.dumps(sent).encode())
    assert refused.value.message == message
    assert refused.value.param == param
