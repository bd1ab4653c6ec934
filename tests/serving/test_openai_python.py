"""OpenAI's own Python client asks the shipped model, and checks the shape of each reply; it never asks twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel
from running import wait_for
from served import DEADLINE, EXAMPLES, LONG, LONG_CHAT, MODEL, PATIENCE, data_url, nano, serving, slowly

QUESTION, ANSWER = "What color is the circle?", "red"
ENDLESS: dict[str, Any] = {"logit_bias": {"1": -100}}
"""Forbids the shipped model's end token."""


class Seen(BaseModel):
    """What an answer may be parsed into."""

    color: Literal["red", "green", "blue"]
    circles: Literal[0, 1, 2]


def client_of(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE, _strict_response_validation=True
    )


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with serving() as url:
        yield client_of(url)


def image(name: str = "shapes.png") -> Any:
    return {"type": "image_url", "image_url": {"url": data_url(name), "detail": "auto"}}


def about(name: str, question: str = QUESTION) -> list[Any]:
    return [{"role": "user", "content": [image(name), {"type": "text", "text": question}]}]


def is_idle() -> bool:
    return not nano().engine.has_work


def test_an_answer_is_the_command_lines(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=about("shapes.png"))
    assert reply.choices[0].message.content == nano().answer(EXAMPLES / "shapes.png", QUESTION) == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_has_what_clients_rely_on(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": about("shapes.png", "Describe it."), "max_tokens": 20, **ENDLESS}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert len({(one.id, one.created, one.model) for one in chunks}) == 1
    first, *middle, end, usage = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert all(one.choices[0].delta.role is None and one.choices[0].finish_reason is None for one in middle)
    assert len(middle) > 1
    text = "".join(one.choices[0].delta.content or "" for one in middle)
    assert text == whole.choices[0].message.content
    assert (end.choices[0].delta.content, end.choices[0].finish_reason) == (None, "length")
    assert not usage.choices
    assert usage.usage == whole.usage
    assert all(one.usage is None for one in chunks[:-1])


def test_several_pictures_in_their_places(client: openai.OpenAI) -> None:
    parts = [image("counting.png"), {"type": "text", "text": QUESTION}, image("shapes.png")]
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}], max_tokens=8)
    shown = [EXAMPLES / "counting.png", EXAMPLES / "shapes.png"]
    places = [{"type": "image"}, {"type": "text", "text": QUESTION}, {"type": "image"}]
    assert reply.choices[0].message.content == nano().answer(shown, places, max_tokens=8)


def test_turns_before(client: openai.OpenAI) -> None:
    chat = nano().chat(EXAMPLES / "shapes.png")
    before = chat.ask(QUESTION)
    turns = [*about("shapes.png"), {"role": "assistant", "content": before}]
    reply = client.chat.completions.create(
        model=MODEL, messages=[*turns, {"role": "user", "content": "What shape is blue?"}]
    )
    assert reply.choices[0].message.content == chat.ask("What shape is blue?")


def test_n_answers_and_their_seed(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": about("shapes.png", "Say anything."), "max_tokens": 12, **ENDLESS}
    drawn = {**asked, "n": 3, "temperature": 1.5, "seed": 7}
    first, second = client.chat.completions.create(**drawn), client.chat.completions.create(**drawn)
    texts = [one.message.content for one in first.choices]
    assert [one.index for one in first.choices] == [0, 1, 2]
    assert texts == [one.message.content for one in second.choices]
    assert len(set(texts)) == 3
    pieces = ["", "", ""]
    for chunk in client.chat.completions.create(**drawn, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.delta.content or ""
    assert pieces == texts


@pytest.mark.parametrize("streams", [False, True])
def test_log_probabilities_are_the_contents(streams: bool, client: openai.OpenAI) -> None:
    asked: Any = {
        "model": MODEL,
        "messages": about("shapes.png", "Describe it."),
        "max_tokens": 16,
        "logprobs": True,
        "top_logprobs": 3,
        "temperature": 1.2,
        "seed": 5,
    }
    if streams:
        chunks = [one.choices[0] for one in client.chat.completions.create(**asked, stream=True)]
        text = "".join(one.delta.content or "" for one in chunks)
        tokens = [token for one in chunks if one.logprobs for token in one.logprobs.content or []]
    else:
        choice = client.chat.completions.create(**asked).choices[0]
        assert choice.logprobs is not None
        text, tokens = choice.message.content or "", choice.logprobs.content or []
    assert text
    assert "".join(one.token for one in tokens) == text
    assert b"".join(bytes(one.bytes or []) for one in tokens) == text.encode()
    assert all(len(one.top_logprobs) == 3 and one.logprob <= 0 for one in tokens)
    assert all(one.top_logprobs[0].logprob >= one.logprob - 1e-6 for one in tokens)


def test_a_stop_string_is_no_part_of_the_text(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": about("shapes.png", "Describe it."), "max_tokens": 24, **ENDLESS}
    text = client.chat.completions.create(**asked).choices[0].message.content or ""
    stop = text[5:8]
    cut = client.chat.completions.create(**asked, stop=["never there", stop]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (text[: text.index(stop)].strip(), "stop")
    streamed = list(client.chat.completions.create(**asked, stop=stop, stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in streamed) == cut.message.content
    assert streamed[-1].choices[0].finish_reason == "stop"


def test_answers_are_parsed_into_a_model(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(model=MODEL, messages=about("shapes.png"), response_format=Seen)
    assert isinstance(reply.choices[0].message.parsed, Seen)
    with client.chat.completions.stream(model=MODEL, messages=about("shapes.png"), response_format=Seen) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == reply.choices[0].message.parsed
    response = client.responses.parse(model=MODEL, input=items("shapes.png"), text_format=Seen)
    assert response.output_parsed == reply.choices[0].message.parsed


def items(name: str, question: str = QUESTION) -> Any:
    parts = [
        {"type": "input_image", "image_url": data_url(name), "detail": "auto"},
        {"type": "input_text", "text": question},
    ]
    return [{"role": "user", "content": parts}]


def test_a_response_and_its_stream(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": MODEL,
        "input": items("shapes.png"),
        "instructions": "Be short.",
        "metadata": {"user": "1"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "max_output_tokens": 16,
    }
    whole = client.responses.create(**asked)
    assert (whole.output_text, whole.status, whole.metadata) == (ANSWER, "completed", {"user": "1"})
    events = list(client.responses.create(**asked, stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output[0].model_dump(exclude={"id"}) == whole.output[0].model_dump(exclude={"id"})
    assert last.response.usage == whole.usage
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_text == whole.output_text


def test_a_response_that_is_cut_off(client: openai.OpenAI) -> None:
    form = {"format": {"type": "json_schema", "name": "long", "schema": {"type": "string", "minLength": 100}}}
    asked: Any = {"model": MODEL, "input": "Say anything.", "max_output_tokens": 16, "text": form}
    whole = client.responses.create(**asked)
    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    *_, last = client.responses.create(**asked, stream=True)
    assert last.type == "response.incomplete"
    assert last.response.output_text == whole.output_text


def test_a_conversation_is_sent_with_each_response(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input=items("shapes.png"))
    before = [*items("shapes.png"), *(one.model_dump(exclude_none=True) for one in first.output)]
    said: Any = [*before, {"role": "user", "content": "What shape is blue?"}]
    chat = nano().chat(EXAMPLES / "shapes.png")
    chat.ask(QUESTION)
    assert client.responses.create(model=MODEL, input=said).output_text == chat.ask("What shape is blue?")
    with pytest.raises(openai.NotFoundError, match="keeps no responses"):
        client.responses.retrieve(first.id)


def test_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"n": 0}, openai.BadRequestError, "n"),
        ({"stop": [""]}, openai.BadRequestError, "stop"),
        ({"top_logprobs": 2}, openai.BadRequestError, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools"),
        ({"extra_body": {"guided_json": {}}}, openai.BadRequestError, "guided_json"),
        ({"messages": [{"role": "tool", "content": "x"}]}, openai.BadRequestError, "messages[0].role"),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError, "response_format"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_a_mistake_is_named(
    streams: bool, change: Any, error: type[openai.APIStatusError], param: str, client: openai.OpenAI
) -> None:
    with pytest.raises(error) as refused:
        client.chat.completions.create(**{"model": MODEL, "messages": about("shapes.png"), "stream": streams, **change})
    assert refused.value.param == param


def test_a_stream_that_is_left_is_ended(client: openai.OpenAI) -> None:
    """Whoever closes it gives its row back."""
    wait_for(is_idle)
    messages: Any = [{"role": "user", "content": "Go on."}]
    chat: dict[str, Any] = {"model": MODEL, "messages": messages, "response_format": LONG_CHAT}
    response: dict[str, Any] = {"model": MODEL, "input": "Go on.", "text": {"format": LONG}}
    with slowly():
        for create, asked in ((client.chat.completions.create, chat), (client.responses.create, response)):
            stream = create(**asked, stream=True)
            next(iter(stream))
            wait_for(lambda: not is_idle())
            stream.close()
            wait_for(is_idle)
    reply = client.chat.completions.create(model=MODEL, messages=about("shapes.png"))
    assert reply.choices[0].message.content == ANSWER


def test_one_too_many_is_told_when_to_ask_again() -> None:
    with serving(max_running=1, max_waiting=0) as url:
        client = client_of(url)
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Go on."}]}
        with slowly():
            stream = client.chat.completions.create(**asked, response_format=LONG_CHAT, stream=True)
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(**asked)
            assert int(refused.value.response.headers["retry-after"]) >= 1
            stream.close()
            wait_for(is_idle)
        reply = wait_for(lambda: answered(client, asked))
        assert reply.choices[0].finish_reason == "stop"


def answered(client: openai.OpenAI, asked: Any) -> ChatCompletion | None:
    """A reply, unless the place of one that has left is not given back yet."""
    try:
        reply: ChatCompletion = client.chat.completions.create(**asked)
    except openai.RateLimitError:
        return None
    return reply


def test_a_wrong_key() -> None:
    with serving(api_keys=("right",)) as url:
        with pytest.raises(openai.AuthenticationError):
            client_of(url, "wrong").models.list()
        assert [one.id for one in client_of(url, "right").models.list()] == [MODEL]


def test_late_answers() -> None:
    """Before the first byte a status; after it an error in the stream."""
    with serving(deadline=DEADLINE) as url, slowly():
        late = client_of(url)
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Go on."}], "response_format": LONG_CHAT}
        with pytest.raises(openai.InternalServerError) as refused:
            late.chat.completions.create(**asked)
        assert (refused.value.status_code, refused.value.code) == (504, "deadline_exceeded")
        with pytest.raises(openai.APIError, match="deadline") as told:
            list(late.chat.completions.create(**asked, stream=True))
        assert not isinstance(told.value, openai.APIStatusError)
        response: Any = {"model": MODEL, "input": "Go on.", "text": {"format": LONG}}
        events = list(late.responses.create(**response, stream=True))
        assert [one.type for one in events[-2:]] == ["error", "response.failed"]
        assert [one.sequence_number for one in events] == list(range(len(events)))
        assert "deadline" in json.dumps(events[-1].model_dump(mode="json"))
