"""Answers of a form: JSON, or JSON that a schema describes, by saying at each token which ones may follow.

In: `response_format` of a chat request, or `text.format` of a response's. Out: a :data:`TokenMask`, from llguidance's
compiled grammar. A schema that cannot be followed is refused here, before its request waits.

A model is not told the schema: it can only write what fits. White space between JSON's parts is left out, since small
models go on writing it.

Legend: K vocabulary.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flashsloth.errors import PromptError
from flashsloth.inference.prompt import end_ids_of
from flashsloth.serving.api_error import invalid
from flashsloth.serving.config import ServeError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    from flashsloth.inference.pipeline import FlashSloth
    from flashsloth.inference.sampling_params import TokenMask

TEXT, JSON_OBJECT, JSON_SCHEMA = "text", "json_object", "json_schema"
SCHEMA_FIELDS = ("name", "description", "schema", "strict")

MOST_TEXT = 64 << 10
"""Characters of a schema's JSON."""
MOST_PARTS = 4000
"""Keys and items in a schema, in all: compiling takes their number's square, and 0.9 s for so many."""
MOST_DEPTH = 64
"""Of a schema's JSON; one level of an object's properties is two of JSON's."""
MOST_PATTERNS = 24
"""In a schema: whether two leave any text may take a second to find out."""
LARGEST_MULTIPLE = 20_000
"""Product of a schema's multipleOf, without decimal points: an automaton has so many states."""
COMPILE_SECONDS = 30.0
COMPILERS = 2
GRAMMARS_KEPT = 16
OPTIONS = {
    "whitespace_flexible": False,
    "whitespace_pattern": None,
    "lenient": False,
    "coerce_one_of": False,
}
"""Of llguidance: what it does not know of a schema is refused and not skipped."""
MOST_MESSAGE = 300
BITS = 32


class Grammars:
    """Makes masks for one model's answers.

    Args:
        tokenizer: the model's, a fast one of transformers.
        end_ids: that end an answer.
        vocabulary: K.

    Raises:
        ServeError: if llguidance is not installed.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int], vocabulary: int) -> None:
        try:
            import llguidance.numpy  # noqa: F401
        except ImportError as error:
            raise ServeError("llguidance is not installed: pip install flashsloth[serve]") from error
        self._tokenizer, self._end_ids, self._vocabulary = tokenizer, list(end_ids), vocabulary
        self._compilers = ThreadPoolExecutor(COMPILERS, thread_name_prefix="flashsloth grammar")
        self._lock, self._wrapping = threading.Lock(), threading.Lock()
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()  # a schema's JSON -> before its first token

    @classmethod
    def of(cls, sloth: FlashSloth) -> Grammars:
        """For a model that is loaded."""
        tokenizer = sloth.processor.tokenizer
        return cls(tokenizer, end_ids_of(sloth.model, tokenizer), sloth.model.config.text_config.vocab_size)

    async def mask(self, asked: Any, answers: int, param: str = "response_format") -> TokenMask | None:
        """What the tokens of a request's answers are masked with; None where they are free.

        Args:
            asked: `response_format`, or `text.format`; None where the request has none.
            answers: that the request gets.
            param: what an error calls it.

        Raises:
            ApiError: 400 for a form that answers cannot be given.
        """
        schema = schema_of(asked, param)
        if schema is None:
            return None
        text = _checked(schema, param)
        loop = asyncio.get_running_loop()
        try:
            compiling = loop.run_in_executor(self._compilers, self._compiled, text)
            start = await asyncio.wait_for(compiling, COMPILE_SECONDS)
        except TimeoutError:
            raise invalid(f"the schema takes more than {COMPILE_SECONDS:g} s to compile: simplify it", param) from None
        except PromptError as error:
            raise invalid(f"the schema cannot be followed: {error}", param) from error
        return JsonMask(start, self._vocabulary, answers)

    def _compiled(self, text: str) -> LLMatcher:
        """The grammar of a schema, before an answer's first token.

        Raises:
            PromptError: if llguidance cannot follow it.
        """
        with self._lock:
            if text in self._kept:
                self._kept.move_to_end(text)
                return self._kept[text]
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=OPTIONS)
        except ValueError as error:
            raise PromptError(_line(str(error))) from error
        with self._wrapping:
            tokenizer = self._wrapped
        start = LLMatcher(tokenizer, grammar, log_level=0, limits=_limits())
        if start.is_error():
            raise PromptError(_line(start.get_error()))
        try:
            JsonMask(start, self._vocabulary, 1)(())
        except PromptError as error:
            raise PromptError("no text fits it") from error
        with self._lock:
            self._kept[text] = start
            if len(self._kept) > GRAMMARS_KEPT:
                self._kept.popitem(last=False)
        return start

    @cached_property
    def _wrapped(self) -> LLTokenizer:
        """The tokenizer as llguidance reads it; made once, since it takes a second for a large one."""
        from llguidance.hf import from_tokenizer

        known = max(self._vocabulary, len(self._tokenizer))
        try:
            return from_tokenizer(self._tokenizer, n_vocab=known, eos_token=self._end_ids)
        except ValueError as error:
            raise PromptError(f"this model's tokenizer does not do for it ({_line(str(error))})") from error


class JsonMask:
    """Which tokens may follow those of an answer so far: a :data:`TokenMask`.

    It depends on nothing but the tokens it is called with; for those that it met a step before it is quick.

    Args:
        start: before an answer's first token.
        vocabulary: K.
        answers: that it is asked about side by side.
    """

    def __init__(self, start: LLMatcher, vocabulary: int, answers: int) -> None:
        self._start, self._vocabulary, self._most = start, vocabulary, 2 * answers
        self._met: OrderedDict[tuple[int, ...], LLMatcher] = OrderedDict()  # after these tokens

    def __call__(self, tokens: Sequence[int]) -> torch.Tensor:
        """bool [K].

        Raises:
            PromptError: where the tokens do not fit, or following them takes too much.
        """
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        matcher = self._after(tuple(tokens))
        bits = allocate_token_bitmask(1, self._vocabulary)  # int32 [1, K / 32]
        bits[:] = 0
        if not matcher.is_error():
            fill_next_token_bitmask(matcher, bits)
        if matcher.is_error():
            raise PromptError(f"the schema cannot be followed at token {len(tokens)}: {_line(matcher.get_error())}")
        allowed = np.unpackbits(bits[0].view(np.uint8), count=self._vocabulary, bitorder="little")
        return torch.from_numpy(allowed.view(np.bool_))

    def _after(self, tokens: tuple[int, ...]) -> LLMatcher:
        """Where the grammar is after these tokens; copied from one token before, where that was met."""
        found = self._met.get(tokens)
        if found is None:
            before = self._met.get(tokens[:-1]) if tokens else None
            found = (self._start if before is None else before).deep_copy()
            found.consume_tokens(list(tokens if before is None else tokens[-1:]))
            self._met[tokens] = found
            if len(self._met) > self._most:
                self._met.popitem(last=False)
        return found


def schema_of(asked: Any, param: str) -> Mapping[str, Any] | None:
    """The JSON schema that a form asks for; None where it is plain text.

    Both interfaces' shapes are taken: `{"type": "json_schema", "json_schema": {"name", "schema"}}` and
    `{"type": "json_schema", "name", "schema"}`.

    Raises:
        ApiError: 400 for anything else.
    """
    if asked is None:
        return None
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    if kind not in (TEXT, JSON_OBJECT, JSON_SCHEMA):
        shown = f"of type {kind!r}" if isinstance(asked, Mapping) else type(asked).__name__
        raise invalid(f"{param} is {shown}; expected type {TEXT}, {JSON_OBJECT} or {JSON_SCHEMA}", param)
    rest = {name: value for name, value in asked.items() if name != "type"}
    if kind == JSON_SCHEMA and param == "response_format":
        param, nested = f"{param}.{JSON_SCHEMA}", rest.pop(JSON_SCHEMA, None)
        _refuse_unknown(rest, (), "response_format")
        if not isinstance(nested, Mapping):
            raise invalid(f"{param} is {type(nested).__name__}; expected an object with name and schema", param)
        rest = dict(nested)
    _refuse_unknown(rest, SCHEMA_FIELDS if kind == JSON_SCHEMA else (), param)
    if kind != JSON_SCHEMA:
        return {"type": "object"} if kind == JSON_OBJECT else None
    if not isinstance(rest.get("name"), str) or not rest["name"]:
        raise invalid(f"{param}.name is {rest.get('name')!r}; expected a text", f"{param}.name")
    if rest.get("strict") not in (True, False, None):
        raise invalid(f"{param}.strict is {rest['strict']!r}; expected true or false", f"{param}.strict")
    schema = rest.get("schema", {})
    if not isinstance(schema, Mapping):
        raise invalid(f"{param}.schema is {type(schema).__name__}; expected a JSON schema", f"{param}.schema")
    return schema


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], param: str) -> None:
    for name in given:
        if name not in known:
            raise invalid(f"{param} has no field {name!r}: leave it out", f"{param}.{name}")


def _checked(schema: Mapping[str, Any], param: str) -> str:
    """A schema's JSON, small enough to be compiled in bounded time.

    Raises:
        ApiError: 400 for a larger one.
    """
    parts, patterns, multiple = 0, 0, Decimal(1)
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        value, depth = left.pop()
        if not isinstance(value, Mapping | list):
            continue
        if depth > MOST_DEPTH:
            raise invalid(f"the schema is nested more than {MOST_DEPTH} deep: make it flatter", param)
        if isinstance(value, Mapping):
            if "x-guidance" in value:
                raise invalid("the schema has x-guidance, which this server does not take: leave it out", param)
            multiple *= _multiple(value.get("multipleOf"))
            patterns += ("pattern" in value) + len(value.get("patternProperties") or ())
        parts += len(value)
        left += ((one, depth + 1) for one in (value.values() if isinstance(value, Mapping) else value))
        for what, is_over in (
            (f"more than {MOST_PARTS:,} keys and items", parts > MOST_PARTS),
            (f"more than {MOST_PATTERNS} patterns", patterns > MOST_PATTERNS),
            (f"multipleOf of more than {LARGEST_MULTIPLE:,} in all", multiple > LARGEST_MULTIPLE),
        ):
            if is_over:
                raise invalid(f"the schema has {what}: make it smaller", param)
    text = json.dumps(schema)
    if len(text) > MOST_TEXT:
        raise invalid(f"the schema is {len(text):,} characters of JSON; expected at most {MOST_TEXT:,}", param)
    return text


def _multiple(value: Any) -> Decimal:
    """A number's digits without its decimal point and the zeros at its end: 12.50 is 125."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value == 0:
        return Decimal(1)  # llguidance says what is wrong with it
    digits = Decimal(repr(value)).normalize().as_tuple().digits
    return Decimal("".join(map(str, digits)))


def _limits() -> LLParserLimits:
    """Of compiling a grammar, and of following it through one token."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=200_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        verbose_errors=False,  # they would show the answer so far
    )


def _line(message: str) -> str:
    """A message of llguidance in one line; it names options of its own, which clients do not have."""
    if "coerce_one_of" in message:
        return "cases of oneOf that may both fit are not supported; write anyOf"
    line = " ".join(message.replace("<non-verbose/>", "").split())
    return line if len(line) <= MOST_MESSAGE else line[:MOST_MESSAGE] + "..."
