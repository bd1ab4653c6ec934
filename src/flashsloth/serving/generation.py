"""One request on its way through the server: pictures, prompt, engine, answers.

In: what is asked (`asked.py`), made by each interface of its own body. Out: whole answers, or pieces as they are made.

    async with service.generation(asked) as generation:
        answers = await generation.answers()
        async for piece in generation.pieces(): ...

Leaving the block ends what is still being made. What goes wrong is an :class:`ApiError`, whatever went wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from flashsloth.errors import EngineError, PromptError
from flashsloth.inference.answer import Answer
from flashsloth.inference.detokenizer import raw_text
from flashsloth.inference.options import Options
from flashsloth.inference.picture_resolution import AUTO, hd_options, standard_options
from flashsloth.inference.request import FinishReason, Request, RequestOutput
from flashsloth.media import PictureError
from flashsloth.serving.answer_text import AnswerText, TokenText
from flashsloth.serving.api_error import ApiError, failed, invalid, late, unavailable
from flashsloth.serving.asked import Asked

if TYPE_CHECKING:
    from flashsloth.inference.vision import PreparedPictures
    from flashsloth.serving.service import Service

LONG_TEXT = 4096
"""Characters beyond which a prompt is written outside the event loop."""
DEAD = "the engine has failed and answers no more: ask again, or ask another server"
LEAST_SECONDS = 1e-3
"""What a request that is nearly late may still take: the engine ends it, and says so."""


@dataclass(frozen=True)
class Piece:
    """What is new of one answer.

    Attributes:
        index: which of the request's answers.
        text: may be empty.
        tokens: with log-probabilities and their shares of the text, where log-probabilities were asked for.
        answer: the whole answer, with its last piece.
    """

    index: int
    text: str
    tokens: tuple[TokenText, ...] = ()
    answer: Answer | None = None


@dataclass
class Times:
    """Seconds from when the request was accepted; None for what has not happened.

    Attributes:
        pictures: until its pictures were ready.
        first_token: until a token of its first answer was there; of a reply that comes whole, until all were.
        total: until its last answer ended.
    """

    pictures: float | None = None
    first_token: float | None = None
    total: float | None = None


class Preparer(Protocol):
    """What makes pictures ready."""

    async def prepare(self, sources: Sequence[str], resolution: str | None) -> PreparedPictures:
        """See :meth:`Pictures.prepare`."""


class Generation:
    """Answers one request; made by :meth:`Service.generation`.

    Args:
        service: that answers.
        asked: what is asked.
        pictures: makes its pictures ready; None for the service's own way.

    Attributes:
        asked: as given.
        times: of its stages.
        prompt_tokens, answer_tokens: how many there were.
    """

    def __init__(self, service: Service, asked: Asked, pictures: Preparer | None = None) -> None:
        self.asked, self.times = asked, Times()
        self.prompt_tokens = self.answer_tokens = 0
        self._ends: list[str] = []
        self._service, self._since = service, time.monotonic()
        self._pictures = service.pictures if pictures is None else pictures
        seconds = service.config.deadline
        self.deadline = min(seconds, asked.options.params.deadline or seconds)
        self._request: Request | None = None
        self._last_step: float | None = None

    async def start(self, *, streams: bool) -> None:
        """Make everything ready that can still be refused as a whole.

        Raises:
            ApiError: for whatever is wrong with the request.
        """
        if self.asked.form is not None:
            self.asked = await self._in_form()
        self._request = await self._made(standard_options(self.asked.options), streams and not self._is_auto)
        self.prompt_tokens = len(self._request.prompt)

    async def answers(self) -> list[Answer]:
        """One for each of the request's n; one in all where choices were given.

        Raises:
            ApiError: if one of them ended in an error, or the deadline came before.
        """
        if self._request is None:
            await self.start(streams=False)
        answers = await self._first_answers()
        if again := self._again(answers[0]):
            answers = await self._whole(await self._made(again, streams=False), again)
        self._end(answers)
        return answers

    async def pieces(self) -> AsyncGenerator[Piece]:
        """As :meth:`answers`, piece by piece.

        Raises:
            ApiError: as there, in the middle of the pieces.
        """
        if self._request is None:
            await self.start(streams=True)
        request, options = self._request, self.asked.options
        assert request is not None
        if self._is_auto:
            [answer] = await self._first_answers()
            again = self._again(answer)
            if again is None:
                yield self._whole_piece(answer)
                return
            request, options = await self._made(again, streams=True), again
        async with aclosing(self._streamed(request, options)) as pieces:
            async for piece in pieces:
                yield piece

    def facts(self) -> dict[str, Any]:
        """What the log says of it."""
        return {
            "pictures": len(self.asked.pictures),
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.answer_tokens,
            "first_token_seconds": self.times.first_token,
            "finish_reasons": self._ends,
        }

    @property
    def seconds(self) -> float:
        """Since the request was accepted."""
        return time.monotonic() - self._since

    @property
    def _is_auto(self) -> bool:
        return self.asked.options.resolution == AUTO

    async def _first_answers(self) -> list[Answer]:
        assert self._request is not None
        return await self._whole(self._request, standard_options(self.asked.options))

    def _again(self, answer: Answer) -> Options | None:
        """How HD is asked, if it has to be; then its first token is the first that counts."""
        options = hd_options(self.asked.options, answer, self.seconds)
        if options is not None:
            self.times.first_token = None
        return options

    async def _in_form(self) -> Asked:
        """What is asked, with a mask by which answers get their form."""
        asked, params = self.asked, self.asked.options.params
        try:
            async with asyncio.timeout(self._left()):
                mask = await self._service.grammars.mask(asked.form, params.n, asked.form_param)
        except TimeoutError as error:
            raise late(self.deadline) from error
        return replace(asked, options=replace(asked.options, params=replace(params, mask=mask)))

    async def _made(self, options: Options, streams: bool) -> Request:
        """What the engine is asked."""
        service, asked = self._service, self.asked
        options = replace(options, params=replace(options.params, deadline=self._left()))
        try:
            async with asyncio.timeout(self._left()):
                pictures = await self._pictures.prepare(asked.pictures, options.resolution)
        except TimeoutError as error:
            raise late(self.deadline) from error
        except PictureError as error:
            raise invalid(str(error), asked.param, "invalid_image") from error
        if asked.pictures:
            self.times.pictures = self.seconds
        characters = sum(len(str(message["content"])) for message in asked.messages)
        write = service.sloth.conversation_request
        try:
            if characters > LONG_TEXT or service.sloth.writer.is_busy:
                return await asyncio.to_thread(write, asked.messages, pictures, options, streams)
            return write(asked.messages, pictures, options, streams)
        except PromptError as error:
            raise invalid(str(error), asked.param) from error

    async def _outputs(self, request: Request) -> AsyncGenerator[list[RequestOutput]]:
        """What the engine makes of a request."""
        try:
            reply = self._service.engine.submit(request)
        except PromptError as error:
            raise invalid(str(error), self.asked.param) from error
        except EngineError as error:
            raise unavailable(DEAD, 1) from error  # what it failed with may quote another's request
        try:
            async with aclosing(aiter(reply)) as outputs:
                async for some in outputs:
                    self._note(some)
                    yield some
        except EngineError as error:
            raise unavailable(DEAD, 1) from error  # what it failed with may quote another's request

    async def _whole(self, request: Request, options: Options) -> list[Answer]:
        collector = self._service.sloth.collector(request, options)
        async with aclosing(self._outputs(request)) as outputs:
            async for some in outputs:
                for output in some:
                    self._check(output)
                    collector.add(output)
        return collector.answers()

    async def _streamed(self, request: Request, options: Options) -> AsyncGenerator[Piece]:
        params, tokenizer = options.params, self._service.sloth.processor.tokenizer
        collector = self._service.sloth.collector(request, options)
        by_token = self.asked.options.params.logprobs
        texts = [AnswerText(tokenizer, params.stop, by_token) for _ in range(params.n)]
        async with aclosing(self._outputs(request)) as outputs:
            async for some in outputs:
                for output in some:
                    self._check(output)
                    collector.add(output)
                    text, tokens = texts[output.index].add(output.tokens)
                    if output.finish_reason is None:
                        if text or tokens:
                            yield Piece(output.index, text, tuple(tokens))
                        continue
                    rest, last = texts[output.index].finish()
                    answer = collector.answer(output.index)
                    self._end([answer])
                    yield Piece(output.index, text + rest, (*tokens, *last), answer)

    def _whole_piece(self, answer: Answer) -> Piece:
        """An answer that is there already."""
        self._end([answer])
        return Piece(0, answer.text, tuple(self.token_texts(answer)), answer)

    def token_texts(self, answer: Answer) -> list[TokenText]:
        """Of each of an answer's tokens its share of the text; none without log-probabilities."""
        if not self.asked.options.params.logprobs:
            return []
        text = AnswerText(self._service.sloth.processor.tokenizer, self.asked.options.params.stop, by_token=True)
        return [one for part in (text.add(answer.sampled), text.finish()) for one in part[1]]

    def raw_text(self, answer: Answer) -> str:
        """What an answer's tokens spell, white space at either end included."""
        return raw_text(answer.tokens, self._service.sloth.processor.tokenizer)

    def _check(self, output: RequestOutput) -> None:
        """Let an answer go on that did not end in another way than its own.

        Raises:
            ApiError: for one that did.
        """
        if output.finish_reason == FinishReason.TIMEOUT:
            raise late(self.deadline)
        if output.finish_reason == FinishReason.ABORT:
            raise unavailable("the server ends, and with it this answer: ask again", 1)
        if output.finish_reason == FinishReason.ERROR:
            error = output.error
            if isinstance(error, ApiError):
                raise error
            if isinstance(error, PromptError):
                raise invalid(str(error), self.asked.param) from error
            raise failed(f"the answer could not be made: {error}") from error

    def _note(self, outputs: list[RequestOutput]) -> None:
        made = sum(len(one.tokens) for one in outputs)
        if not made:
            return
        self.answer_tokens += made
        now, last = self.seconds, self._last_step
        self._last_step = now
        if self.times.first_token is None:
            self.times.first_token = now
        self._service.metrics.note_step(self, made, None if last is None else now - last)

    def _end(self, answers: list[Answer]) -> None:
        self.times.total = self.seconds
        for answer in answers:
            self._ends.append(str(answer.finish_reason))
            self._service.metrics.note_end(self, answer)

    def _left(self) -> float:
        """Seconds until the deadline."""
        return max(self.deadline - self.seconds, LEAST_SECONDS)
