"""What is asked of the engine, and what comes back.

    Request         a prompt with its pictures, and how to answer it
    RequestOutput   what one step brought for one of a request's answers: tokens, and its end once it has ended

Every answer ends in exactly one :class:`FinishReason`, and carries the tokens that it has so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from flashsloth.inference.prompt import Prompt
from flashsloth.inference.sampling import Sampled
from flashsloth.inference.sampling_params import SamplingParams

if TYPE_CHECKING:
    from flashsloth.inference.kv_cache import LayerStates
    from flashsloth.inference.vision import PreparedPictures
    from flashsloth.model.attention_maps import AttentionWeights


class FinishReason(StrEnum):
    """How an answer ended."""

    STOP = "stop"
    """The model ended it, or a stop string came."""
    LENGTH = "length"
    """It has as many tokens as it may have."""
    ABORT = "abort"
    """Its caller did not want the rest."""
    TIMEOUT = "timeout"
    """Its deadline has passed."""
    ERROR = "error"
    """Something went wrong; the output says what."""


@dataclass(frozen=True, eq=False)
class Request:
    """One thing to answer, in one or several ways.

    Attributes:
        prompt: up to where the answer starts.
        pictures: opened, resized and digested, or encoded already; None without.
        params: how tokens are chosen.
        states: keys and values of the prompt's first positions, where the caller has them.
        choices: token ids, end token included, of answers that are scored instead of one that is made.
        keeps_prefix: whether keys and values before the question are kept for the next one about the same pictures; if
            not, they are once a second question shares them.
        keep_states: whether keys and values of all that was run come with the last output.
        streams: whether tokens come as they are made; else all of them with the answer's end.
        attention: whether the prompt's attention is recorded.
    """

    prompt: Prompt
    pictures: PreparedPictures | None = None
    params: SamplingParams = field(default_factory=SamplingParams)
    states: LayerStates | None = None
    choices: tuple[tuple[int, ...], ...] = ()
    keeps_prefix: bool = True
    keep_states: bool = False
    streams: bool = False
    attention: bool = False

    @property
    def answers(self) -> int:
        """How many answers, or choices, come back."""
        return len(self.choices) or self.params.n


@dataclass(frozen=True)
class RequestOutput:
    """What a step brought for one answer.

    Attributes:
        request_id: of its request.
        index: which of the request's answers, or choices, it is.
        tokens: new ones, with log-probabilities where they were asked for.
        finish_reason: how it ended; None while it goes on.
        error: what went wrong, where it ended in an error.
        seed: of its draws.
        states: where the request asked for them, at the end.
        attention: the prompt's, at the end; None where the request did not ask, or has no picture.
    """

    request_id: int
    index: int
    tokens: tuple[Sampled, ...] = ()
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    seed: int | None = None
    states: LayerStates | None = None
    attention: AttentionWeights | None = None
