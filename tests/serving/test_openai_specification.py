"""Every reply and every event against OpenAI's specification, to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai_spec import check, check_event, needs_specification
from served import DEADLINE, LONG, LONG_CHAT, MODEL, data_url, events_of, post, refusal, serving, slowly

pytestmark = needs_specification

CHAT, RESPONSES = "/chat/completions", "/responses"
SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "blue"]}},
    "required": ["color"],
    "additionalProperties": False,
}
CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "n": {"n": 2, "temperature": 1, "seed": 1},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "temperature": 1.2, "seed": 3},
    "log-probabilities alone": {"logprobs": True},
    "cut off": {"max_tokens": 1},
    "usage": {"stream_options": {"include_usage": True}},
    "stop": {"stop": "e"},
    "form": {"response_format": {"type": "json_schema", "json_schema": {"name": "seen", "schema": SCHEMA}}},
    "any object": {"response_format": {"type": "json_object"}, "max_completion_tokens": 20},
    "penalties": {"presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"5": 2}},
    "where it looked": {"flashsloth": {"attention": True, "resolution": "standard"}},
    "ignored": {
        "user": "x",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "parallel_tool_calls": True,
    },
}
RESPONSE_BODIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "log-probabilities": {
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "temperature": 1.2,
    },
    "cut off": {"max_output_tokens": 1},
    "form": {"text": {"format": {"type": "json_schema", "name": "seen", "schema": SCHEMA, "strict": True}}},
    "any object": {"text": {"format": {"type": "json_object"}}, "max_output_tokens": 20},
    "instructions": {"instructions": "Be short.", "metadata": {"a": "b"}, "top_p": 0.5},
    "where it looked": {"flashsloth": {"attention": "embq"}},
    "ignored": {"store": True, "user": "x", "truncation": "disabled", "background": False, "tools": []},
}
FORM = {"type": "json_schema", "name": "x", "schema": {"not": {}}}


def said(*parts: Any) -> list[dict[str, Any]]:
    """A conversation of one message."""
    return [{"role": "user", "content": list(parts)}]


def chat_image(url: Any) -> dict[str, Any]:
    return {"messages": said({"type": "image_url", "image_url": url})}


def response_image(**fields: Any) -> dict[str, Any]:
    return {"input": said({"type": "input_image", **fields})}


REFUSED: dict[str, tuple[str, dict[str, Any], int, str | None]] = {
    "another model": (CHAT, {"model": "gpt-4"}, 404, "model"),
    "no picture": (CHAT, chat_image({"url": "data:image/png;base64,AAAA"}), 400, "messages"),
    "another site": (CHAT, chat_image({"url": "https://elsewhere.example/a.png"}), 400, "messages"),
    "a bare address in chat": (CHAT, chat_image("data:"), 400, "messages[0].content[0].image_url"),
    "a file's id": (RESPONSES, response_image(file_id="file-1"), 400, "input[0].content[0].file_id"),
    "an object": (RESPONSES, response_image(image_url={"url": "data:"}), 400, "input[0].content[0].image_url"),
    "a call": (RESPONSES, {"input": [{"type": "function_call", "call_id": "x"}]}, 400, "input[0].type"),
    "what was said before": (RESPONSES, {"previous_response_id": "resp_1"}, 400, "previous_response_id"),
    "a conversation": (RESPONSES, {"conversation": "conv_1"}, 400, "conversation"),
    "in the background": (RESPONSES, {"background": True}, 400, "background"),
    "a stored prompt": (RESPONSES, {"prompt": {"id": "x"}}, 400, "prompt"),
    "left out of the middle": (RESPONSES, {"truncation": "auto"}, 400, "truncation"),
    "verbosity": (RESPONSES, {"text": {"verbosity": "low"}}, 400, "text.verbosity"),
    "include": (RESPONSES, {"include": ["everything"]}, 400, "include[0]"),
    "top_logprobs alone": (RESPONSES, {"top_logprobs": 1}, 400, "top_logprobs"),
    "unknown": (RESPONSES, {"input": [{"role": "user", "content": "x", "colour": 1}]}, 400, "input[0].colour"),
    "no input": (RESPONSES, {"input": []}, 400, "input"),
    "an assistant first": (RESPONSES, {"input": [{"role": "assistant", "content": "x"}]}, 400, "input[0].role"),
    "no tokens": (RESPONSES, {"max_output_tokens": 0}, 400, "max_output_tokens"),
    "a schema": (RESPONSES, {"text": {"format": FORM}}, 400, "text.format"),
    "too long": (RESPONSES, {"input": "What? " * 2000}, 400, "input"),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as address:
        yield f"{address}/v1"


def chat_body(**fields: Any) -> dict[str, Any]:
    parts = [
        {"type": "image_url", "image_url": {"url": data_url("shapes.png")}},
        {"type": "text", "text": "What color is the circle?"},
    ]
    return {"model": MODEL, "messages": [{"role": "user", "content": parts}], **fields}


def response_body(**fields: Any) -> dict[str, Any]:
    parts = [
        {"type": "input_image", "image_url": data_url("shapes.png")},
        {"type": "input_text", "text": "What color is the circle?"},
    ]
    return {"model": MODEL, "input": [{"role": "user", "content": parts}], **fields}


@pytest.mark.parametrize("name", CHATS)
def test_chat_is_what_the_specification_says(name: str, url: str) -> None:
    fields = dict(CHATS[name])
    streaming = {"stream": True, **fields}
    fields.pop("stream_options", None)
    reply = post(url + CHAT, chat_body(**fields))
    assert reply.status_code == 200, reply.text
    check("CreateChatCompletionResponse", reply.json())
    stream = post(url + CHAT, chat_body(**streaming))
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-cache"
    assert stream.text.endswith("data: [DONE]\n\n")
    for chunk in events_of(stream.text):
        check("CreateChatCompletionStreamResponse", chunk)


@pytest.mark.parametrize("name", RESPONSE_BODIES)
def test_responses_are_what_the_specification_says(name: str, url: str) -> None:
    fields = RESPONSE_BODIES[name]
    reply = post(url + RESPONSES, response_body(**fields))
    assert reply.status_code == 200, reply.text
    check("Response", reply.json())
    stream = post(url + RESPONSES, response_body(**fields, stream=True))
    events = events_of(stream.text)
    assert "[DONE]" not in stream.text
    for event in events:
        check_event(event)
    kinds = [event["type"] for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:-1] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert kinds[-1] == f"response.{reply.json()['status']}"
    assert set(kinds[4:-4]) <= {"response.output_text.delta"}
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    assert len({event["item_id"] for event in events if "item_id" in event}) == 1
    text = "".join(event["delta"] for event in events if "delta" in event)
    assert text == events[-4]["text"] == events[-1]["response"]["output"][0]["content"][0]["text"]


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_what_the_specification_says(name: str, url: str) -> None:
    path, fields, status, param = REFUSED[name]
    body = (chat_body if path == CHAT else response_body)(**fields)
    for stream in (False, True):
        reply = post(url + path, {**body, "stream": stream})
        check("ErrorResponse", reply.json())
        assert refusal(reply) == (status, param), reply.text


def test_models_are_what_the_specification_says(url: str) -> None:
    reply = httpx2.get(f"{url}/models")
    check("ListModelsResponse", reply.json())
    for model in reply.json()["data"]:
        check("Model", model)
        check("Model", httpx2.get(f"{url}/models/{model['id']}").json())
    check("ErrorResponse", httpx2.get(f"{url}/models/other").json())


def test_errors_in_a_stream_are_what_the_specification_says() -> None:
    with serving(deadline=DEADLINE) as address, slowly():
        body = {"model": MODEL, "input": "Go on.", "text": {"format": LONG}, "stream": True}
        events = events_of(post(f"{address}/v1{RESPONSES}", body).text)
        for event in events:
            check_event(event)
        assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
        said_so = [{"role": "user", "content": "Go on."}]
        body = {"model": MODEL, "messages": said_so, "response_format": LONG_CHAT, "stream": True}
        *chunks, error = events_of(post(f"{address}/v1{CHAT}", body).text)
        check("ErrorResponse", error)
        for chunk in chunks:
            check("CreateChatCompletionStreamResponse", chunk)
