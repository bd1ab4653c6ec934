"""Answers of a form: JSON, or JSON that a schema describes, by saying at each token which ones may follow.

In: `response_format` of a chat request, or `text.format` of a response's. Out: a :data:`TokenMask`, from llguidance's
compiled grammar. A schema that cannot be followed is refused here, before its request waits.

A model is not told the schema: it can only write what fits. White space between JSON's parts is left out, since small
models go on writing it.

Legend: K vocabulary.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flashsloth.errors import PromptError
from flashsloth.inference.prompt import end_ids_of
from flashsloth.serving.answer_form import checked_text, schema_of
from flashsloth.serving.api_error import invalid
from flashsloth.serving.config import ServeError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    from flashsloth.inference.pipeline import FlashSloth
    from flashsloth.inference.sampling_params import TokenMask

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
        text = checked_text(schema, param)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(COMPILE_SECONDS):
                start = await loop.run_in_executor(self._compilers, self._compiled, text)
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
