"""Answers, made of what the engine's steps bring for one request.

Collector     all outputs to an :class:`Answer` for each of the n, or one with the probability of each choice
TextStream    outputs, as they come, to pieces of text that, joined, are the answer's text; then the whole answer
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flashsloth.errors import PromptError
from flashsloth.inference.detokenizer import Detokenizer, text_of
from flashsloth.inference.request import FinishReason, Request, RequestOutput
from flashsloth.inference.sampling import Sampled
from flashsloth.inference.visual_attention import Attention
from flashsloth.model.attention_maps import AttentionWeights


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        text: without white space at either end, and without a stop string; of choices the likeliest.
        finish_reason: how it ended.
        tokens: ids of its tokens, end token included.
        logprobs: of each token, of the raw distribution; empty where they were not asked for.
        top_logprobs: the likeliest tokens in place of each token, (id, log-probability); as many as were asked for.
        choices: choice -> probability, where choices were given.
        attention: what the model attended to in each picture, where that was asked for.
        seed: of its draws; None where nothing was drawn.
        resolution: "standard" where each picture was shown as one view, "hd" where as all; None without a picture.
    """

    text: str
    finish_reason: FinishReason
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    choices: dict[str, float] = field(default_factory=dict)
    attention: tuple[Attention, ...] = ()
    seed: int | None = None
    resolution: str | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def sampled(self) -> list[Sampled]:
        """Its tokens, each with what was kept of it."""
        logprobs = self.logprobs or (None,) * len(self.tokens)
        top = self.top_logprobs or ((),) * len(self.tokens)
        return [Sampled(*one) for one in zip(self.tokens, logprobs, top, strict=True)]

    @property
    def confidence(self) -> float | None:
        """How sure the model is, 0 to 1; None where no log-probabilities were kept.

        Of choices, by how much the likeliest is more probable than the next; else the geometric mean of the tokens'
        probabilities.
        """
        if self.choices:
            best, *others = sorted(self.choices.values(), reverse=True)
            return best - (others[0] if others else 0.0)
        if not self.logprobs:
            return None
        return math.exp(math.fsum(self.logprobs) / len(self.logprobs))


class Collector:
    """Gathers the outputs of one request.

    Args:
        request: what was asked.
        tokenizer: the model's.
        places: from weights of attention to where they lie in the request's pictures.
        choices: the texts of the request's choices, in their order.
        per_token: whether a choice's probability is that of its tokens in the geometric mean.
        resolution: at which the request's pictures are shown; None without.

    Attributes:
        tokenizer: as given.
        missing: answers that have not ended.
    """

    def __init__(
        self,
        request: Request,
        tokenizer: Any,
        places: Callable[[AttentionWeights], tuple[Attention, ...]],
        choices: Sequence[str] = (),
        per_token: bool = False,
        resolution: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._places = places
        self._request = request
        self._choices, self._per_token, self._resolution = choices, per_token, resolution
        self.missing = request.answers
        self._tokens: list[list[Sampled]] = [[] for _ in range(self.missing)]
        self._ends: list[RequestOutput | None] = [None] * self.missing

    def add(self, output: RequestOutput) -> None:
        """Take in what a step brought."""
        self._tokens[output.index] += output.tokens
        if output.finish_reason is not None:
            self._ends[output.index] = output
            self.missing -= 1

    def collect(self, outputs: Iterable[RequestOutput]) -> list[Answer]:
        """The answers that these outputs make, all of them the request's; see :meth:`answers`."""
        for output in outputs:
            self.add(output)
        return self.answers()

    def answer(self, index: int) -> Answer:
        """One of the request's n, which has ended.

        Raises:
            Exception: what it ended in, where that is an error.
        """
        end = self._ends[index]
        assert end is not None
        if end.error is not None:
            raise end.error
        return self._answer(self._tokens[index], end)

    def answers(self) -> list[Answer]:
        """One for each of the request's n; one in all where choices were given.

        Raises:
            Exception: what ended one of them in an error.
        """
        ends = [end for end in self._ends if end is not None]
        for end in ends:
            if end.error is not None:
                raise end.error
        made = [self._answer(tokens, end) for tokens, end in zip(self._tokens, ends, strict=True)]
        return [self._chosen(made)] if self._choices else made

    def _answer(self, tokens: list[Sampled], end: RequestOutput) -> Answer:
        assert end.finish_reason is not None
        ids = tuple(one.token for one in tokens)
        return Answer(
            text_of(ids, self.tokenizer, self._request.params.stop),
            end.finish_reason,
            ids,
            tuple(one.logprob for one in tokens if one.logprob is not None),
            tuple(one.top for one in tokens if one.top),
            attention=() if end.attention is None else self._places(end.attention),
            seed=end.seed if self._request.params.temperature else None,
            resolution=self._resolution,
        )

    def _chosen(self, made: list[Answer]) -> Answer:
        """The likeliest choice; where one was cut short, by a deadline or its caller, all were."""
        cut = next((one for one in made if one.finish_reason != FinishReason.STOP), None)
        if cut is not None:
            return Answer("", cut.finish_reason, resolution=self._resolution)
        probabilities = choice_probabilities([one.logprobs for one in made], self._per_token)
        best = max(range(len(made)), key=probabilities.__getitem__)
        return Answer(
            self._choices[best],
            FinishReason.STOP,
            made[best].tokens,
            made[best].logprobs,
            made[best].top_logprobs,
            choices=dict(zip(self._choices, probabilities, strict=True)),
            attention=made[best].attention,
            resolution=self._resolution,
        )


def choice_probabilities(logprobs: Sequence[Sequence[float]], per_token: bool = False) -> list[float]:
    """Probabilities of choices, which sum to 1.

    Args:
        logprobs: of each choice's tokens, its end token included.
        per_token: take their mean in place of their sum, so that a long choice is not the less likely for its length.
    """
    totals = [math.fsum(one) / (len(one) if per_token else 1) for one in logprobs]
    largest = max(totals)
    weights = [math.exp(total - largest) for total in totals]
    return [weight / math.fsum(weights) for weight in weights]


class TextStream(Iterator[str]):
    """Pieces of an answer's text. Closing or dropping it ends the answer.

    Args:
        outputs: of the one answer, as the engine makes them.
        collector: of the request's outputs.
        request: which is answered.
        abort: ends the answer, where it is still being made.

    Attributes:
        last: the output that the answer ended with; None while it goes on.
    """

    def __init__(
        self,
        outputs: Iterable[RequestOutput],
        collector: Collector,
        request: Request,
        abort: Callable[[], object] = lambda: None,
    ) -> None:
        self.last: RequestOutput | None = None
        self._collector = collector
        self._text = Detokenizer(collector.tokenizer, request.params.stop)
        self._outputs, self._abort = iter(outputs), abort

    def __next__(self) -> str:
        """The next piece, never empty.

        Raises:
            EngineError: if the engine has failed.
            Exception: what the answer ended in, where it is an error.
        """
        while self.last is None:
            try:
                output = next(self._outputs)
            except BaseException:  # Ctrl-C, or the engine has failed
                self.close()
                raise
            piece = self._take(output)
            if output.error is not None:
                raise output.error
            if piece:
                return piece
        raise StopIteration

    @property
    def text(self) -> str:
        """What has come so far, white space at its ends and what may become a stop string left out."""
        return self._text.text

    @property
    def tokens(self) -> list[int]:
        """Ids that have come so far."""
        return self._text.ids

    @property
    def answer(self) -> Answer:
        """The whole answer, once it has ended or was closed.

        Raises:
            PromptError: before.
            Exception: what the answer ended in, where it is an error.
        """
        if self.last is None:
            raise PromptError("the answer is still being made: read its pieces to the end, or close it, before")
        return self._collector.answers()[0]

    def close(self) -> None:
        """End the answer where it is."""
        if self.last is None:
            self._abort()
            self._take(RequestOutput(-1, 0, finish_reason=FinishReason.ABORT))  # none of the engine's: so without an id

    def _take(self, output: RequestOutput) -> str:
        """The text that became certain with an output."""
        self._collector.add(output)
        piece = "".join([self._text.add(one.token) for one in output.tokens])
        if output.finish_reason is None:
            return piece
        self.last = output
        return piece + self._text.finish()
