"""What clients ask closed questions with: bodies of POST /v1/systemone, and their parts.

As `openai_schema.py`: every field is used, or named as ignored, or refused by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from flashsloth.serving.api_error import invalid
from flashsloth.serving.openai_schema import Body, FlashSlothOptions, shown

CHOICE, NOUL, SCORE = "choice", "noul", "score"
YES, NO = "yes", "no"
MOST_QUESTIONS, MOST_OPTIONS = 64, 255
MOST_TEXT = 64 << 10
"""Characters that stand in one question, its state included: each question has a prompt of its own."""
PLAIN_NAME = re.compile(r"[\w .-]{1,64}")
Content = str | dict[str, Any] | list[Any]


class Question(Body):
    """A question, and what may be answered."""

    type: Literal["choice", "noul", "score"]
    instructions: Content | None = None
    criteria: dict[str, Content | None] | list[Content] | None = None


class Asset(Body):
    """A picture."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"type", "format"})
    data_base64: str


class SystemOneRequest(Body):
    """The body of POST /v1/systemone."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"keep_alive"})
    model: str | None = None
    state: Content = ""
    questions: Annotated[dict[str, Question], Field(min_length=1, max_length=MOST_QUESTIONS)]
    assets: dict[str, Asset] | None = None
    images: list[str] | None = None
    flashsloth: FlashSlothOptions | None = None


@dataclass(frozen=True)
class Scored:
    """What may be answered to a question.

    Attributes:
        names: that the reply calls them by.
        texts: that are scored.
        described: lines that tell the model what they mean.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    described: tuple[str, ...] = ()


def where_of(name: str, of: str = "questions") -> str:
    """Where something stands that a client has named."""
    return f"{of}.{name}" if PLAIN_NAME.fullmatch(name) else f"{of}.{shown(name)}"


def pictures_of(body: SystemOneRequest, ignored: list[str]) -> dict[str, str]:
    """Name -> its picture, as a data URL."""
    found = {}
    for name, asset in (body.assets or {}).items():
        where = where_of(name, "assets")
        ignored += asset.ignored(where)
        if not name:
            raise invalid("assets has a picture without a name: expected one that the state shows", "assets")
        data = asset.data_base64
        found[name] = data if data[:5].lower() == "data:" else f"data:image/*;base64,{data}"
    return found


def scored(question: Question, where: str, ignored: list[str]) -> Scored:
    """What may be answered to a question.

    Raises:
        ApiError: 400 where its criteria are not its type's.
    """
    ignored += question.ignored(where)
    criteria = question.criteria
    if question.type == NOUL:
        given = criteria or {}
        if not isinstance(given, Mapping) or set(given) - {"true", "false"}:
            raise invalid(f'{where}.criteria has more than "true" and "false": leave it out', f"{where}.criteria")
        texts = {"true": YES, "false": NO}
        described = tuple(f"{text}: {text_of(given[name])}" for name, text in texts.items() if given.get(name))
        return Scored(tuple(texts), tuple(texts.values()), described)
    expected: type[Any] = dict if question.type == CHOICE else list
    if not isinstance(criteria, expected) or not 1 <= len(criteria) <= MOST_OPTIONS:
        shape = '{"option": "what it means", ...}' if question.type == CHOICE else '["least", ..., "most"]'
        raise invalid(
            f"{where}.criteria is not what a {question.type} needs: expected {shape}, 1 to {MOST_OPTIONS} of them",
            f"{where}.criteria",
        )
    if isinstance(criteria, list):
        levels = tuple(text_of(level) for level in criteria)
        return Scored(tuple(map(str, range(len(levels)))), levels)
    described = tuple(f"{name}: {text_of(meaning)}" for name, meaning in criteria.items() if meaning)
    return Scored(tuple(criteria), tuple(criteria), described)


def text_of(content: Content | None) -> str:
    """What the model reads of a part of the request."""
    if content is None:
        return ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
