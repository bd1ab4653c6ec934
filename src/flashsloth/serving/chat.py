"""POST /v1/chat/completions: OpenAI's chat in, whole or as a stream of events.

How messages become ours is told in `conversation.py`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from flashsloth.inference.answer import Answer
from flashsloth.serving.answer_text import TokenText, described_token
from flashsloth.serving.api_error import invalid
from flashsloth.serving.asked import Asked
from flashsloth.serving.conversation import ASSISTANT, Conversation
from flashsloth.serving.event_stream import Event, EventStream
from flashsloth.serving.generation import Generation
from flashsloth.serving.looking import described_looking, looked_options
from flashsloth.serving.openai_schema import ChatRequest, ImageUrl, Message, Part, shown
from flashsloth.serving.service import Service, checked_options

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "n",
    "logprobs",
    "top_logprobs",
    "presence_penalty",
    "frequency_penalty",
)
"""Fields of a body that are options of an answer by the same name."""
DIGITS = 9
"""Of a token's id, at most."""


def read_messages(messages: Sequence[Message], service: Service) -> Conversation:
    """A conversation of a client's messages.

    Raises:
        ApiError: 400, naming the message that cannot be used.
    """
    reader = service.reader("messages")
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        reader.ignored += message.ignored(where)
        reader.add(message.role, _parts(message, where, reader.pictures, reader.ignored), where)
    return reader.read()


def _parts(message: Message, where: str, pictures: list[str], ignored: list[str]) -> list[dict[str, Any]]:
    """The parts of a message in our form; its pictures are added to those of the messages before."""
    content = message.content
    if content is None:
        raise invalid(f"{where}.content is missing: expected a text, or a list of parts", f"{where}.content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_part(part, f"{where}.content[{place}]", pictures, ignored) for place, part in enumerate(content)]


def _part(part: Part, where: str, pictures: list[str], ignored: list[str]) -> dict[str, Any]:
    if part.type == "text":
        ignored += part.ignored(where)
        if part.text is None:
            raise invalid(f"{where}.text is missing: expected a text", f"{where}.text")
        return {"type": "text", "text": part.text}
    if part.type == "refusal":
        return {"type": "text", "text": part.refusal or ""}
    if part.type != "image_url":
        text = f"{where} is of type {shown(part.type)}; expected text or image_url"
        raise invalid(text, where, "unsupported_content")
    ignored += part.ignored(where)
    if not isinstance(part.image_url, dict) or not isinstance(part.image_url.get("url"), str):
        text = (
            f'{where}.image_url is {shown(part.image_url)}; expected an object, {{"url": "data:image/png;base64,..."}}'
        )
        raise invalid(text, f"{where}.image_url")
    url = ImageUrl(**part.image_url)
    ignored += url.ignored(f"{where}.image_url")
    pictures.append(url.url)
    return {"type": "image"}


def read_chat(body: ChatRequest, service: Service) -> tuple[Asked, list[str]]:
    """What a body asks for, and its fields that change nothing.

    Raises:
        ApiError: 400, naming the field that cannot be used; 404 for another model.
    """
    service.check_model(body.model)
    ignored = body.ignored()
    if body.stream_options is not None:
        if not body.stream:
            raise invalid("stream_options is for streams: give stream: true, or leave it out", "stream_options")
        ignored += body.stream_options.ignored("stream_options")
    read = read_messages(body.messages, service)
    given = {name: getattr(body, name) for name in SAMPLING if getattr(body, name) is not None}
    given["max_tokens"] = _max_tokens(body, service.config.max_tokens)
    if body.logit_bias:
        given["logit_bias"] = {_token(name): bias for name, bias in body.logit_bias.items()}
    if body.stop:
        given["stop"] = body.stop
    options = checked_options({**given, "system": read.system, **looked_options(body.flashsloth)}, service)
    return Asked(read.messages, read.pictures, options, body.response_format), [*ignored, *read.ignored]


def _max_tokens(body: ChatRequest, default: int) -> int:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise invalid("max_tokens and max_completion_tokens are the same: give one of them", "max_tokens")
    wanted = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    return default if wanted is None else wanted


def _token(name: str) -> int:
    """A token's id, which is a key of a JSON object, and so a text."""
    if not (name.isascii() and name.isdigit() and len(name) <= DIGITS):
        raise invalid(f"logit_bias holds {shown(name)}; expected ids of tokens with numbers", "logit_bias")
    return int(name)


class ChatReply:
    """Writes what one request gets.

    Args:
        body: the request.
        service: that answers it.
    """

    def __init__(self, body: ChatRequest, service: Service) -> None:
        self._body, self._service = body, service
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": service.name}

    def whole(self, generation: Generation, answers: Sequence[Answer]) -> dict[str, Any]:
        """The reply of a request that does not stream."""
        choices = []
        for index, answer in enumerate(answers):
            message = {"role": ASSISTANT, "content": answer.text, "refusal": None}
            logprobs = self._logprobs(generation.token_texts(answer))
            end = {"finish_reason": str(answer.finish_reason), "logprobs": logprobs}
            choices.append({"index": index, "message": message, **end, **self._own(generation, answer)})
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage(generation)}

    def stream(self, events: AsyncGenerator[Event], **options: Any) -> EventStream:
        """The reply of a request that streams; options as of :class:`EventStream`."""
        return EventStream(events, **options)

    async def events(self, generation: Generation) -> AsyncGenerator[Event]:
        """The events of a stream but its last, in the order in which OpenAI's clients rely on them."""
        first: dict[str, Any] = {"role": ASSISTANT, "content": "", "refusal": None}
        for index in range(generation.asked.answers):
            yield self._chunk([self._choice(index, first)])
        async with aclosing(generation.pieces()) as pieces:
            async for piece in pieces:
                if piece.text or piece.tokens:
                    logprobs = self._logprobs(piece.tokens)
                    yield self._chunk([self._choice(piece.index, {"content": piece.text}, logprobs)])
                if piece.answer is not None:
                    end = self._choice(piece.index, {}, None, str(piece.answer.finish_reason))
                    yield self._chunk([{**end, **self._own(generation, piece.answer)}])
        if self._includes_usage:
            yield {**self._chunk([]), "usage": usage(generation)}

    @property
    def _includes_usage(self) -> bool:
        return self._body.stream_options is not None and bool(self._body.stream_options.include_usage)

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        known = {"usage": None} if self._includes_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, **known}

    def _choice(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, end: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}

    def _logprobs(self, tokens: Sequence[TokenText]) -> dict[str, Any] | None:
        if not self._body.logprobs:
            return None
        tokenizer = self._service.sloth.processor.tokenizer
        return {"content": [described_token(one, tokenizer) for one in tokens], "refusal": None}

    def _own(self, generation: Generation, answer: Answer) -> dict[str, Any]:
        """What this server says beside OpenAI's interface, where it was asked to."""
        asked = self._body.flashsloth
        return {} if asked is None else {"flashsloth": described_looking(asked, generation, answer)}


def usage(generation: Generation) -> dict[str, int]:
    """Tokens of a request."""
    prompt, made = generation.prompt_tokens, generation.answer_tokens
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
