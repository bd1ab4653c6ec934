"""Bodies are read in bounded time: what holds too many values is refused before each of them becomes an object."""

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
