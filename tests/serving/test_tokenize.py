"""Counting over HTTP: the ids are those of the prompt that the model reads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from served import EXAMPLES, MODEL, PATIENCE, data_url, nano, post, refusal, serving


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


def test_a_text_that_no_context_holds_is_refused_at_once(url: str) -> None:
    long = "abc " * (2 << 20)
    assert refusal(post(f"{url}/tokenize", {"prompt": long})) == (400, "prompt")
    assert refusal(post(f"{url}/tokenize", {"messages": [{"role": "user", "content": long}]})) == (400, "messages")
    asked = {"model": MODEL, "messages": [{"role": "user", "content": long}]}
    assert refusal(post(f"{url}/v1/chat/completions", asked)) == (400, "messages")
    assert refusal(post(f"{url}/v1/responses", {"model": MODEL, "input": long})) == (400, "input")
    questions = {"a": {"type": "noul", "instructions": "Is it?"}}
    body = {"state": long, "questions": questions}
    assert refusal(post(f"{url}/v1/systemone", body)) == (400, "questions.a")
    assert post(f"{url}/tokenize", {"prompt": "abc " * 10_000}).json()["count"] > 10_000


def test_a_prompt_waits_for_no_other_in_the_event_loop(url: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    with ThreadPoolExecutor(1) as pool:
        with nano().writer._lock:  # as another request's long text holds it
            assert nano().writer.is_busy
            waiting = pool.submit(post, f"{url}/v1/chat/completions", body)
            while not metric(url, "num_requests_waiting"):
                assert not waiting.done()
            assert httpx2.get(f"{url}/health/live", timeout=PATIENCE).status_code == 200
            assert not waiting.done()
        assert waiting.result().status_code == 200


def metric(url: str, name: str) -> float:
    lines = httpx2.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"flashsloth:{name} "))
