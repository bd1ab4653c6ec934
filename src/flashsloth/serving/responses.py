"""POST /v1/responses: OpenAI's newer interface, without a memory: what was said before comes with each request.

The events of a stream, each with its number:

    response.created, response.in_progress
    response.output_item.added, response.content_part.added
    response.output_text.delta ...                               the answer, as it is made
    response.output_text.done, response.content_part.done, response.output_item.done
    response.completed | response.incomplete                     the second where it was cut off
    error, response.failed                                       in place of whatever was to follow
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from flashsloth.inference.answer import Answer
from flashsloth.inference.request import FinishReason
from flashsloth.serving.answer_text import TokenText, described_token
from flashsloth.serving.api_error import ApiError, invalid
from flashsloth.serving.asked import Asked
from flashsloth.serving.conversation import ASSISTANT, USER, Conversation, ConversationReader, Parts
from flashsloth.serving.event_stream import Event, EventStream
from flashsloth.serving.generation import Generation
from flashsloth.serving.looking import described_looking, looked_options
from flashsloth.serving.openai_schema import shown
from flashsloth.serving.responses_schema import InputItem, InputPart, ResponsesRequest
from flashsloth.serving.service import Service, checked_options

LOGPROBS = "message.output_text.logprobs"
INCLUDABLE = (
    LOGPROBS,
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
)
"""What a reply may be asked to have; all but the first is of what there is none of here."""
TEXT_PARTS = ("input_text", "output_text")
IN_PROGRESS, COMPLETED, INCOMPLETE, FAILED = "in_progress", "completed", "incomplete", "failed"
PLACE = {"output_index": 0, "content_index": 0}
"""Of the one part of the one item that there is."""


def read_responses(body: ResponsesRequest, service: Service) -> tuple[Asked, list[str]]:
    """What a body asks for, and its fields that change nothing.

    Raises:
        ApiError: 400, naming the field that cannot be used; 404 for another model.
    """
    service.check_model(body.model)
    ignored = body.ignored()
    if body.text is not None:
        ignored += body.text.ignored("text")
    for place, name in enumerate(body.include or []):
        if name not in INCLUDABLE:
            raise invalid(f"include[{place}] is {shown(name)}; expected {LOGPROBS}", f"include[{place}]")
        ignored += [] if name == LOGPROBS else [f"include[{place}]"]
    logprobs = LOGPROBS in (body.include or [])
    if body.top_logprobs and not logprobs:
        text = f"top_logprobs is {body.top_logprobs}, and include does not have {LOGPROBS}: add it, or leave both out"
        raise invalid(text, "top_logprobs")
    read = read_input(body, service)
    given = {
        "max_tokens": service.config.max_tokens if body.max_output_tokens is None else body.max_output_tokens,
        "logprobs": logprobs,
        "top_logprobs": body.top_logprobs or 0,
        "system": read.system,
        **{name: value for name in ("temperature", "top_p") if (value := getattr(body, name)) is not None},
        **looked_options(body.flashsloth),
    }
    options = checked_options(given, service)
    form = None if body.text is None else body.text.format
    return Asked(read.messages, read.pictures, options, form, "input", "text.format"), [*ignored, *read.ignored]


def read_input(body: ResponsesRequest, service: Service) -> Conversation:
    """The conversation of a request.

    Raises:
        ApiError: 400, naming the item that cannot be used.
    """
    reader = service.reader("input", body.instructions)
    if isinstance(body.input, str):
        reader.add(USER, [{"type": "text", "text": body.input}], "input")
        return reader.read()
    for place, item in enumerate(body.input):
        where = f"input[{place}]"
        if item.type != "message":
            text = f"{where} is of type {shown(item.type)}; expected message"
            raise invalid(text, f"{where}.type", "unsupported_content")
        reader.ignored += item.ignored(where)
        if item.role is None:
            raise invalid(f"{where}.role is missing", f"{where}.role", "missing_required_parameter")
        reader.add(item.role, _parts(item, where, reader), where)
    return reader.read()


def _parts(item: InputItem, where: str, reader: ConversationReader) -> Parts:
    """The parts of an item in our form."""
    if item.content is None:
        raise invalid(f"{where}.content is missing: expected a text, or a list of parts", f"{where}.content")
    if isinstance(item.content, str):
        return [{"type": "text", "text": item.content}]
    return [_part(part, f"{where}.content[{place}]", reader) for place, part in enumerate(item.content)]


def _part(part: InputPart, where: str, reader: ConversationReader) -> dict[str, Any]:
    if part.type in TEXT_PARTS or part.type == "refusal":
        reader.ignored += part.ignored(where)
        name = "refusal" if part.type == "refusal" else "text"
        said = getattr(part, name)
        if said is None:
            raise invalid(f"{where}.{name} is missing: expected a text", f"{where}.{name}")
        return {"type": "text", "text": said}
    if part.type != "input_image":
        text = f"{where} is of type {shown(part.type)}; expected input_text, input_image or output_text"
        raise invalid(text, f"{where}.type", "unsupported_content")
    reader.ignored += part.ignored(where)
    if part.file_id is not None:
        text = f"{where}.file_id names a file, and this server keeps none: give image_url"
        raise invalid(text, f"{where}.file_id", "unsupported_parameter")
    if not isinstance(part.image_url, str):
        text = f"{where}.image_url is {shown(part.image_url)}; expected a text, such as data:image/png;base64,..."
        raise invalid(text, f"{where}.image_url")
    reader.pictures.append(part.image_url)
    return {"type": "image"}


class ResponsesReply:
    """Writes what one request gets.

    Args:
        body: the request.
        service: that answers it.
    """

    def __init__(self, body: ResponsesRequest, service: Service) -> None:
        self._body, self._service = body, service
        self._id, self._item = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self._created, self._number = int(time.time()), 0

    def whole(self, generation: Generation, answers: Sequence[Answer]) -> dict[str, Any]:
        """The reply of a request that does not stream."""
        [answer] = answers
        return self._ended(generation, answer, generation.token_texts(answer))

    def stream(self, events: AsyncGenerator[Event], **options: Any) -> EventStream:
        """The reply of a request that streams; options as of :class:`EventStream`."""
        return EventStream(events, **options, named=True, on_error=self._failed, is_done=False)

    async def events(self, generation: Generation) -> AsyncGenerator[Event]:
        """The events of a stream."""
        yield self._event("response.created", response=self._response(IN_PROGRESS))
        yield self._event("response.in_progress", response=self._response(IN_PROGRESS))
        yield self._event("response.output_item.added", output_index=0, item=self._message(IN_PROGRESS))
        here = {"item_id": self._item, **PLACE}
        yield self._event("response.content_part.added", **here, part=self._part("", ()))
        tokens: list[TokenText] = []
        try:
            async with aclosing(generation.pieces()) as pieces:
                async for piece in pieces:
                    tokens += piece.tokens
                    if piece.text or piece.tokens:
                        logprobs = self._event_logprobs(piece.tokens)
                        yield self._event("response.output_text.delta", **here, delta=piece.text, logprobs=logprobs)
                    if piece.answer is not None:
                        for event in self._last_events(generation, piece.answer, tokens):
                            yield event
        except ApiError as error:
            yield self._event("error", code=error.code, message=error.message, param=error.param)
            raise

    def _last_events(self, generation: Generation, answer: Answer, tokens: Sequence[TokenText]) -> list[Event]:
        ended = self._ended(generation, answer, tokens)
        [item] = ended["output"]
        [part] = item["content"]
        here = {"item_id": self._item, **PLACE}
        logprobs = self._event_logprobs(tokens)
        return [
            self._event("response.output_text.done", **here, text=part["text"], logprobs=logprobs),
            self._event("response.content_part.done", **here, part=part),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{ended['status']}", response=ended),
        ]

    def _event(self, kind: str, **fields: Any) -> Event:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **fields}

    def _failed(self, error: ApiError) -> Event:
        """The last event of a stream that had begun, and could not be ended well."""
        is_server = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        told = {"code": "server_error" if is_server else "invalid_prompt", "message": error.message}
        return self._event("response.failed", response={**self._response(FAILED), "error": told})

    def _ended(self, generation: Generation, answer: Answer, tokens: Sequence[TokenText]) -> dict[str, Any]:
        """The response, once its answer is there."""
        status = INCOMPLETE if answer.finish_reason == FinishReason.LENGTH else COMPLETED
        cut = {"reason": "max_output_tokens"} if status == INCOMPLETE else None
        asked = self._body.flashsloth
        own = {} if asked is None else {"flashsloth": described_looking(asked, generation, answer)}
        return {
            **self._response(status),
            "completed_at": int(time.time()) if status == COMPLETED else None,
            "incomplete_details": cut,
            "output": [self._message(status, [self._part(answer.text, tokens)])],
            "usage": _usage(generation),
            **own,
        }

    def _response(self, status: str) -> dict[str, Any]:
        """What a response says of its request, and that nothing has come of it yet."""
        body = self._body
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self._service.name,
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "temperature": body.temperature or 0.0,
            "text": {"format": (body.text and body.text.format) or {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "metadata": body.metadata or {},
        }

    def _message(self, status: str, content: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        return {"id": self._item, "type": "message", "status": status, "role": ASSISTANT, "content": list(content)}

    def _part(self, text: str, tokens: Sequence[TokenText]) -> dict[str, Any]:
        logprobs = [described_token(one, self._service.sloth.processor.tokenizer) for one in tokens]
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _event_logprobs(self, tokens: Sequence[TokenText]) -> list[dict[str, Any]]:
        """Log-probabilities as events have them: without bytes."""
        described = self._part("", tokens)["logprobs"]
        return [
            {**_without_bytes(one), "top_logprobs": [*map(_without_bytes, one["top_logprobs"])]} for one in described
        ]


def not_kept() -> ApiError:
    """404: what asks for a response by its id."""
    return ApiError(HTTPStatus.NOT_FOUND, "this server keeps no responses: send what was said before with each request")


def _without_bytes(token: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in token.items() if name != "bytes"}


def _usage(generation: Generation) -> dict[str, Any]:
    """Tokens of a request."""
    prompt, made = generation.prompt_tokens, generation.answer_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + made,
    }
