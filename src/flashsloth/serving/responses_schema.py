"""What clients of the Responses interface send: bodies of POST /v1/responses, and their parts.

As `openai_schema.py`: every field is used, or named as ignored, or refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from flashsloth.serving.openai_schema import Body, FlashSlothOptions


class InputPart(Body):
    """A part of an item: a text or a picture; or, of an answer, what it said."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"detail", "annotations", "logprobs", "prompt_cache_breakpoint"})
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    file_id: str | None = None


class InputItem(Body):
    """A message of a conversation, whoever said it."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"id", "status", "phase"})
    type: str = "message"
    role: str | None = None
    content: str | list[InputPart] | None = None


class TextOptions(Body):
    """The form of the answer's text."""

    UNSUPPORTED: ClassVar[Mapping[str, tuple[Any, ...]]] = {"verbosity": ("medium",)}
    format: dict[str, Any] | None = None


class ResponsesRequest(Body):
    """The body of POST /v1/responses."""

    IGNORED: ClassVar[frozenset[str]] = frozenset(
        {
            "store",
            "user",
            "service_tier",
            "parallel_tool_calls",
            "max_tool_calls",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "prompt_cache_options",
            "stream_options",
        }
    )
    UNSUPPORTED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "previous_response_id": (),
        "conversation": (),
        "background": (False,),
        "prompt": (),
        "reasoning": ({}, {"effort": "none"}),
        "truncation": ("disabled",),
        "context_management": ([],),
        "moderation": (),
    }
    model: str
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    text: TextOptions | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    flashsloth: FlashSlothOptions | None = None
