"""POST /tokenize: the ids of a text, or of a conversation's prompt as the model reads it, as vLLM's route has them.

{"prompt": "a text"}            {"count", "max_model_len", "tokens", "token_strs"}
{"messages": [...]}             as chat's; each picture takes the places that it would take
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from flashsloth.errors import PromptError
from flashsloth.inference.prompt import context_of
from flashsloth.serving.api_error import invalid
from flashsloth.serving.chat import read_messages
from flashsloth.serving.conversation import USER
from flashsloth.serving.looking import looked_options
from flashsloth.serving.openai_schema import Body, FlashSlothOptions, Message
from flashsloth.serving.service import Service, checked_options


class TokenizeRequest(Body):
    """The body of POST /tokenize."""

    UNSUPPORTED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
        "chat_template": (),
        "chat_template_kwargs": ({},),
        "tools": ([],),
    }
    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool | None = None
    flashsloth: FlashSlothOptions | None = None


async def tokenized(body: TokenizeRequest, service: Service) -> tuple[dict[str, Any], list[str]]:
    """The reply, and the body's fields that change nothing.

    Raises:
        ApiError: 400, naming the field that cannot be used; 404 for another model.
    """
    if body.model is not None:
        service.check_model(body.model)
    ignored = body.ignored()
    if (body.prompt is None) == (body.messages is None):
        raise invalid("a request has prompt or messages, and one of them: expected a text, or a conversation", "prompt")
    writer = service.sloth.writer
    if body.messages is None:
        assert body.prompt is not None
        service.reader("prompt").add(USER, [{"type": "text", "text": body.prompt}], "prompt")
        ids = await asyncio.to_thread(_ids, service, body.prompt, body.add_special_tokens)
    else:
        read = read_messages(body.messages, service)
        options = checked_options(looked_options(body.flashsloth), service)
        ignored += read.ignored
        try:
            prompt = await asyncio.to_thread(writer.write, read.messages, read.system, options.resolution)
        except PromptError as error:
            raise invalid(str(error), "messages") from error
        ids = prompt.input_ids
    texts = service.sloth.processor.tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
    context = context_of(service.sloth.model)
    return {"count": len(ids), "max_model_len": context, "tokens": ids, "token_strs": texts}, ignored


def _ids(service: Service, text: str, with_specials: bool) -> list[int]:
    try:
        return service.sloth.writer.text_ids(text, with_specials)
    except PromptError as error:
        raise invalid(str(error), "prompt") from error
