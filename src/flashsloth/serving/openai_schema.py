"""What OpenAI's clients send, and what this server makes of each field of it.

In: the bytes of a body. Out: a request whose every field is used, or accepted because it cannot change an answer here
and then named in the reply's header; anything else is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flashsloth.serving.api_error import ApiError, invalid

IGNORED_HEADER = "X-FlashSloth-Ignored"
SHOWN = 80
"""Characters of a client's value that an error shows."""
MOST_VALUES = 50_000
"""Of a body's JSON: reading them takes a tenth of a second, in which nobody else is served."""
QUOTES = 4
"""Of a value: two around its name, and two around itself where it is a text."""


def _say_all(schema: dict[str, Any], kind: type[Any]) -> None:
    """Let a body's schema have every field that is taken, and no other."""
    about = {"description": "Accepted; changes nothing here."}
    known = {name: dict(about) for name in sorted(kind.IGNORED)}
    unsupported = {name: {"enum": [None, *values]} for name, values in kind.UNSUPPORTED.items()}
    schema["properties"] = {**schema.get("properties", {}), **known, **unsupported}
    schema["additionalProperties"] = False


class Body(BaseModel):
    """A body, or a part of one: nothing but its fields, of exactly their types.

    Attributes:
        IGNORED: fields that cannot change an answer here.
        UNSUPPORTED: known fields that are not built, each with the values that ask for nothing.
    """

    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra=_say_all)
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    UNSUPPORTED: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def ignored(self, where: str = "") -> list[str]:
        """Fields that were given and change nothing, with where they stand: in this body, at `where` in a larger one.

        Raises:
            ApiError: 400 for a field that is unknown, or not built.
        """
        found = []
        for name, value in (self.__pydantic_extra__ or {}).items():
            full = f"{where}.{name}" if where else name
            if name in self.IGNORED:
                found.append(full)
            elif name in self.UNSUPPORTED:
                if value is not None and value not in self.UNSUPPORTED[name]:
                    raise invalid(
                        f"{full} is not supported by this server: leave it out", full, "unsupported_parameter"
                    )
            else:
                raise invalid(f"unknown parameter {shown(full)}: leave it out", full[:SHOWN], "unknown_parameter")
        return found


class FlashSlothOptions(BaseModel):
    """What this server has beside OpenAI's interface.

    Attributes:
        attention: where the model looked: "sap", "embq", or true for both.
        tiles: with `attention`, of an HD model its tiles as well.
        resolution: of an HD model.
        resolution_threshold: for "auto", how sure is sure.
        raw_text: reply with the answer's text as its tokens spell it, too: white space at its ends is not stripped.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    attention: bool | Literal["sap", "embq"] = False
    tiles: bool = False
    resolution: Literal["standard", "hd", "auto"] | None = None
    resolution_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    raw_text: bool = False


class Part(Body):
    """A part of a message: a text, or a picture."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"cache_control"})
    type: str
    text: str | None = None
    image_url: Any = None
    refusal: str | None = None


class ImageUrl(Body):
    """Where a picture is."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"detail"})
    url: str


class Message(Body):
    """A message of a conversation."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"name", "refusal", "annotations"})
    UNSUPPORTED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "tool_calls": ([],),
        "function_call": (),
        "audio": (),
        "tool_call_id": (),
    }
    role: str
    content: str | list[Part] | None = None


class StreamOptions(Body):
    """How a stream is written."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"include_obfuscation"})
    include_usage: bool | None = None


class ChatRequest(Body):
    """The body of POST /v1/chat/completions."""

    IGNORED: ClassVar[frozenset[str]] = frozenset(
        {
            "user",
            "parallel_tool_calls",
            "service_tier",
            "metadata",
            "store",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
        }
    )
    UNSUPPORTED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
    }
    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    flashsloth: FlashSlothOptions | None = None


Read = TypeVar("Read", bound=Body)


def read_body(kind: type[Read], body: bytes) -> Read:
    """A body of that kind.

    Raises:
        ApiError: 400, naming the first field that is not as expected.
    """
    _check_size(body)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _first_problem(error) from error
    except RecursionError as error:
        raise invalid("the body is nested too deeply: expected a JSON object of a request") from error


def _check_size(body: bytes) -> None:
    """Refuse a body of too many values, each of which becomes an object, and maybe an error, before it is read."""
    if body.count(b",") <= MOST_VALUES:
        return
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    too_many = plain.count(b'"') > QUOTES * MOST_VALUES
    if too_many or b"".join(plain.split(b'"')[::2]).count(b",") > MOST_VALUES:  # outside of texts
        raise invalid(f"the body holds more than {MOST_VALUES:,} values: send fewer messages, parts or numbers")


def _first_problem(error: ValidationError) -> ApiError:
    problems = error.errors(include_url=False, include_context=False)
    first = _path(problems[0]["loc"])
    inside = [one for one in problems if _path(one["loc"])[: len(first)] == first]
    problem = max(inside, key=lambda one: len(_path(one["loc"])))  # the member of a union that fitted furthest
    path = _path(problem["loc"])
    where = _place(path)
    if problem["type"] == "json_invalid":
        return invalid(f"the body is not JSON ({problem['msg']}): expected a JSON object", code="invalid_json")
    if not where:
        return invalid("the body is not a JSON object: expected the fields of a request")
    if problem["type"] == "missing":
        return invalid(f"{where} is missing", where, "missing_required_parameter")
    if problem["type"] == "extra_forbidden":
        return invalid(f"unknown parameter {shown(where)}: leave it out", where[:SHOWN], "unknown_parameter")
    expected = dict.fromkeys(_expected(one["msg"]) for one in inside if _path(one["loc"]) == path)
    text = f"{where} is {shown(problem['input'])}: it should {', or '.join(expected)}"
    return invalid(text, where, "invalid_value")


def _expected(message: str) -> str:
    """What pydantic says that a value should be: "Input should be a valid string" without its first words."""
    return message.partition(" should ")[2].partition(" after validation")[0] or message


def _path(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A location without the names of a union's members."""
    return tuple(one for one in location if isinstance(one, int) or (one.isidentifier() and one not in UNION_MEMBERS))


def _place(path: tuple[int | str, ...]) -> str:
    """`messages[0].content` of a path."""
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).removeprefix(".")


UNION_MEMBERS = {"str", "bool", "int", "float"}
"""What pydantic calls members of a union in a location."""


def shown(value: Any) -> str:
    """A client's value, short, on one line."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
