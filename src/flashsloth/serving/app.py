"""The application: routes, and how errors are told. What stands around it is `guards.py`.

In: a :class:`Service`. Out: an ASGI application, the same under `flashsloth serve`, in tests and on Ray.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from flashsloth.serving.access_log import LOG
from flashsloth.serving.api_document import EVERYWHERE, document, refusals, takes
from flashsloth.serving.api_error import ApiError, failed
from flashsloth.serving.asked import Asked
from flashsloth.serving.chat import ChatReply, read_chat
from flashsloth.serving.metrics import MEDIA_TYPE
from flashsloth.serving.openai_schema import IGNORED_HEADER, ChatRequest, read_body
from flashsloth.serving.page_files import add_page
from flashsloth.serving.responses import ResponsesReply, not_kept, read_responses
from flashsloth.serving.responses_schema import ResponsesRequest
from flashsloth.serving.service import Service
from flashsloth.serving.systemone import Decisions
from flashsloth.serving.systemone_schema import SystemOneRequest
from flashsloth.serving.tokenize import TokenizeRequest, tokenized
from flashsloth.version import __version__

MOST_HEADER = 1024
"""Characters of a header that a client's request determines."""
logger = logging.getLogger(__name__)


def create_app(service: Service) -> FastAPI:
    """The application of a service, which its lifespan starts and ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="FlashSloth",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    app.add_exception_handler(ApiError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_plainly)
    app.add_exception_handler(Exception, _fail)
    _add_status_routes(app, service)
    for path, route, body, streams in (
        ("/v1/chat/completions", _chat, ChatRequest, True),
        ("/v1/responses", _responses, ResponsesRequest, True),
        ("/v1/systemone", _systemone, SystemOneRequest, False),
        ("/tokenize", _tokenize, TokenizeRequest, False),
    ):
        app.add_api_route(path, route, methods=["POST"], **takes(body, streams=streams))
    nowhere = refusals(*EVERYWHERE, HTTPStatus.NOT_FOUND)
    for method in ("GET", "DELETE"):
        app.add_api_route("/v1/responses/{response_id}", _not_kept, methods=[method], responses=nowhere)
    document(app, (ChatRequest, ResponsesRequest, SystemOneRequest, TokenizeRequest))
    add_page(app)
    return app


async def _chat(request: Request) -> Response:
    """Answer a conversation about pictures."""
    service: Service = request.app.state.service
    service.check_room()
    body = read_body(ChatRequest, await request.body())
    asked, ignored = read_chat(body, service)
    return await _answer(request, asked, ChatReply(body, service), bool(body.stream), ignored)


async def _responses(request: Request) -> Response:
    """Answer a conversation about pictures, of which nothing is kept."""
    service: Service = request.app.state.service
    service.check_room()
    body = read_body(ResponsesRequest, await request.body())
    asked, ignored = read_responses(body, service)
    return await _answer(request, asked, ResponsesReply(body, service), bool(body.stream), ignored)


async def _systemone(request: Request) -> Response:
    """Score the options of closed questions about a state and its pictures."""
    service: Service = request.app.state.service
    decisions = Decisions(read_body(SystemOneRequest, await request.body()), service)
    request.scope[LOG] = decisions
    return json_reply(await decisions.answer(), ignored_header(decisions.ignored))


async def _tokenize(request: Request) -> Response:
    """Count the tokens of a text, or of a conversation."""
    body = read_body(TokenizeRequest, await request.body())
    reply, ignored = await tokenized(body, request.app.state.service)
    return json_reply(reply, ignored_header(ignored))


async def _not_kept(response_id: str) -> Response:
    """No response is kept."""
    raise not_kept()


async def _answer(
    request: Request, asked: Asked, reply: ChatReply | ResponsesReply, streams: bool, ignored: Sequence[str]
) -> Response:
    """The reply to a request, whole or as a stream."""
    service: Service = request.app.state.service
    headers = ignored_header(ignored)
    async with AsyncExitStack() as stack:
        generation = await stack.enter_async_context(service.generation(asked))
        request.scope[LOG] = generation
        if not streams:
            answers = await generation.answers()
            if asked.options.params.logprobs:  # of 128 answers they are megabytes, and take seconds to write
                return await asyncio.to_thread(lambda: json_reply(reply.whole(generation, answers), headers))
            return json_reply(reply.whole(generation, answers), headers)
        await generation.start(streams=True)
        events, held = reply.events(generation), stack.pop_all()
        return reply.stream(events, held=held, ping_seconds=service.config.ping_seconds, headers=headers)


def ignored_header(ignored: Sequence[str]) -> dict[str, str]:
    """Names fields of a request that changed nothing, where there are any; each once, whichever message has it."""
    names = ", ".join(dict.fromkeys(re.sub(r"\[\d+\]", "[]", name) for name in ignored))
    text = names.encode("ascii", "backslashreplace").decode()
    return {IGNORED_HEADER: text[:MOST_HEADER]} if text else {}


def json_reply(content: Any, headers: dict[str, str] | None = None, status: int = HTTPStatus.OK) -> Response:
    """A reply of JSON."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode(), status, headers, "application/json")


def _add_status_routes(app: FastAPI, service: Service) -> None:
    """Health, figures, and which model there is."""

    async def live() -> Response:
        """Whether the process answers at all."""
        return json_reply({"status": "live"})

    async def ready() -> Response:
        """Whether a request would be answered."""
        status = HTTPStatus.OK if service.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return json_reply({"status": "ready" if service.is_ready else "not ready"}, status=status)

    async def metrics() -> Response:
        """Figures, in Prometheus' form."""
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)

    async def models() -> Response:
        """The names that the model is asked by."""
        return json_reply({"object": "list", "data": [service.described(name) for name in service.config.model_names]})

    async def model(model: str) -> Response:
        """One of them."""
        service.check_model(model)
        return json_reply(service.described(model))

    for path, route, kind in (
        ("/health/live", live, JSONResponse),
        ("/health/ready", ready, JSONResponse),
        ("/metrics", metrics, PlainTextResponse),
        ("/v1/models", models, JSONResponse),
        ("/v1/models/{model:path}", model, JSONResponse),
    ):
        refused = refusals(*EVERYWHERE, HTTPStatus.NOT_FOUND)
        app.add_api_route(path, route, methods=["GET"], response_class=kind, responses=refused)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    request.app.state.service.metrics.note_failure(error.status)
    return json_reply(error.body, error.headers, error.status)


async def _refuse_plainly(request: Request, error: Exception) -> Response:
    """Routes and methods that are not there."""
    assert isinstance(error, HTTPException)
    names = {HTTPStatus.NOT_FOUND: "there is nothing here", HTTPStatus.METHOD_NOT_ALLOWED: "this takes other methods"}
    text = f"{names.get(HTTPStatus(error.status_code), error.detail)}: /openapi.json lists what there is"
    return await _refuse(request, ApiError(error.status_code, text, headers=error.headers))


async def _fail(request: Request, error: Exception) -> Response:
    """A fault of ours; starlette raises it again once it is told, and the server logs it."""
    told = failed("the server made a mistake; its log has more")
    return JSONResponse(told.body, told.status)
