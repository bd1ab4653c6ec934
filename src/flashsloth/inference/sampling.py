"""How tokens are chosen: what one request asks for, and the step from its logits to its next token.

In: logits float [n, K], one row a sequence, each with parameters of its own. Out: a token a row, with log-probabilities
where they were asked for. The order of operations, the same for every row:

    1. log-probabilities are read              of the raw distribution, before anything below
    2. what may never be generated             placeholders become -inf
    3. the request's mask                      what a grammar forbids becomes -inf
    4. logit_bias                              added
    5. frequency and presence penalty          subtracted, for tokens that this answer holds so far
    6. temperature 0: the likeliest token      ties go to the lowest id; nothing below applies
    7. temperature                             logits are divided by it
    8. top_k, top_p, min_p                     each of what the one before has left
    9. a draw                                  from a number that (seed, which of the n, place) alone determine

So a draw does not depend on what else runs: the inverse of the cumulated probabilities, in the order of ids, at a
number between 0 and 1. Where rounding moves probabilities a little, another token comes only if that number lies at a
border.

Legend: n rows, K vocabulary.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from flashsloth.errors import PromptError
from flashsloth.inference.sampling_params import SEED_BITS, SamplingParams

COLDEST, HOTTEST = 1e-5, 1e5
"""Temperatures beyond which scaled logits are not finite in float32; draws do not change any more there."""


@dataclass
class SamplingState:
    """What the choice of a sequence's next token depends on beside its logits.

    Attributes:
        params: of its request.
        seed: of its draws.
        index: which of the request's n answers it is.
        tokens: generated so far.
        forced: tokens that are taken in place of a choice, one a step: a choice that is scored.
    """

    params: SamplingParams
    seed: int
    index: int = 0
    tokens: list[int] = field(default_factory=list)
    forced: Sequence[int] = ()

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, and nothing else is asked."""
        return self.params.greedy and not self.forced


@dataclass(frozen=True)
class Sampled:
    """A token that was chosen.

    Attributes:
        token: its id.
        logprob: of the raw distribution, where it was asked for.
        top: the likeliest tokens with their log-probabilities, as many as were asked for.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the next token of every row by its own parameters.

    Args:
        suppressed: tokens that are never generated.
        vocabulary: K.
    """

    def __init__(self, suppressed: Iterable[int], vocabulary: int) -> None:
        self._suppressed = torch.tensor(sorted(suppressed), dtype=torch.long)
        self._vocabulary = vocabulary

    def check(self, params: SamplingParams) -> None:
        """Refuse parameters that name tokens which this model does not have or never generates.

        Raises:
            PromptError: for such parameters.
        """
        never = set(self._suppressed.tolist())
        for token in params.logit_bias:
            if not 0 <= token < self._vocabulary:
                raise PromptError(f"logit_bias names token {token}; this model's are 0 to {self._vocabulary - 1}")
            if token in never:
                raise PromptError(
                    f"logit_bias names token {token}, a placeholder, which is never generated: leave it out"
                )

    def needs_logits(self, states: Sequence[SamplingState]) -> bool:
        """Whether more is asked for than the likeliest tokens, which a pass may have worked out; subclasses see all."""
        return type(self) is not Sampler or not all(state.greedy for state in states)

    @torch.no_grad()
    def __call__(self, logits: torch.Tensor, states: Sequence[SamplingState]) -> list[Sampled | Exception]:
        """The next token of each row, or the error of its own mask; `logits`, float [n, K], are written to."""
        if self._suppressed.device != logits.device:
            self._suppressed = self._suppressed.to(logits.device)
        if all(state.greedy for state in states):
            logits.index_fill_(1, self._suppressed, -torch.inf)
            return [Sampled(token) for token in logits.argmax(dim=-1).tolist()]
        logits = logits.float()
        kept = {row: logits[row].log_softmax(dim=-1) for row, state in enumerate(states) if state.params.logprobs}
        logits.index_fill_(1, self._suppressed, -torch.inf)
        errors = [self._adjust(logits[row], state) for row, state in enumerate(states)]
        tokens = self._choose(logits, states)
        sampled: list[Sampled | Exception] = []
        for row, (state, token, error) in enumerate(zip(states, tokens, errors, strict=True)):
            taken = state.forced[len(state.tokens)] if state.forced else token
            sampled.append(error if error is not None else _with_logprobs(taken, state.params, kept.get(row)))
        return sampled

    def _adjust(self, logits: torch.Tensor, state: SamplingState) -> Exception | None:
        """Steps 3 to 5 on one row's logits, float [K]; the error of its mask, if there is one."""
        params = state.params
        if params.mask is not None:
            try:
                allowed = torch.as_tensor(params.mask(tuple(state.tokens)), dtype=torch.bool, device=logits.device)
                if allowed.shape != logits.shape:
                    raise PromptError(f"the mask has shape {list(allowed.shape)}; expected {list(logits.shape)}")
                logits.masked_fill_(~allowed, -torch.inf)
                if not bool((logits > -torch.inf).any()):
                    raise PromptError(f"the mask allows no token at place {len(state.tokens)}; expected one at least")
            except Exception as error:  # a caller's own function may fail in any way: its request alone ends
                return error
            except BaseException as error:
                return PromptError(f"the mask raised {type(error).__name__}, which ends its own answer alone")
        if params.logit_bias:
            ids = torch.tensor(list(params.logit_bias), device=logits.device)
            logits[ids] += torch.tensor(list(params.logit_bias.values()), device=logits.device)
        if state.tokens and (params.frequency_penalty or params.presence_penalty):
            counts = Counter(state.tokens)
            ids = torch.tensor(list(counts), device=logits.device)
            times = torch.tensor(list(counts.values()), dtype=torch.float32, device=logits.device)
            logits[ids] -= params.frequency_penalty * times + params.presence_penalty
        return None

    def _choose(self, logits: torch.Tensor, states: Sequence[SamplingState]) -> list[int]:
        """Steps 6 to 9: the likeliest token of each row, or a draw."""
        tokens = logits.argmax(dim=-1).tolist()
        drawing = [row for row, state in enumerate(states) if state.params.temperature and not state.forced]
        if drawing:
            some = [states[row] for row in drawing]
            for row, token in zip(drawing, draw(logits[drawing], some), strict=True):
                tokens[row] = token
        return tokens


def drawing_temperature(temperature: float) -> float:
    """What logits are divided by; only where `temperature` is above 0."""
    return min(max(temperature, COLDEST), HOTTEST)


def sampled_ids(model: Any) -> tuple[list[int], int]:
    """What a model never generates, and how many ids it has: a :class:`Sampler`'s arguments."""
    return list(model.generation_config.suppress_tokens or ()), model.config.text_config.vocab_size


def draw(logits: torch.Tensor, states: Sequence[SamplingState]) -> list[int]:
    """Steps 7 to 9 on logits float [n, K]: a token a row."""
    params = [state.params for state in states]
    temperatures = [drawing_temperature(one.temperature) for one in params]
    scores = (logits - logits.amax(dim=-1, keepdim=True)) / _column(temperatures, logits)
    probabilities = scores.softmax(dim=-1)
    if any(one.top_k or one.top_p < 1 or one.min_p for one in params):
        probabilities = _truncated(probabilities, params)
    cumulated = probabilities.double().cumsum(dim=-1)  # [n, K]
    places = [uniform(state.seed, state.index, len(state.tokens)) for state in states]
    wanted = _column(places, cumulated) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, wanted, right=True).clamp_(max=logits.shape[-1] - 1).squeeze(1).tolist()


def draw_border(logits: torch.Tensor, state: SamplingState, other: int) -> float:
    """How near a draw was to another token: the least that a probability would have to change by, or a logit.

    Args:
        logits: float [K], as the draw's own.
        state: what the draw depends on.
        other: the token that was not drawn.
    """
    params = state.params
    scores = (logits.double() - logits.max()) / drawing_temperature(params.temperature)
    probabilities = scores.softmax(dim=-1)
    truncated = _truncated(probabilities[None], [params])[0]
    cumulated = truncated.cumsum(dim=-1) / truncated.sum()
    place = uniform(state.seed, state.index, len(state.tokens))
    before = float(cumulated[other - 1]) if other else 0.0
    distances = [max(before - place, place - float(cumulated[other]), 0.0)] if truncated[other] > 0 else []
    ordered = probabilities.sort(descending=True).values
    if params.top_k and params.top_k < len(ordered):
        distances.append(float(ordered[params.top_k - 1] - ordered[params.top_k]))
    if params.top_p < 1:
        left = ordered[: params.top_k or None]
        cumulated = left.cumsum(dim=-1) / left.sum()
        distances.append(float((cumulated - params.top_p).abs().min()))
    if params.min_p:
        distances.append(float((ordered - params.min_p * ordered[0]).abs().min()))
    return min(distances, default=math.inf)


def uniform(seed: int, index: int, place: int) -> float:
    """A number from 0 to below 1 that these three determine, on any machine."""
    content = struct.pack("<QQQ", seed, index, place)
    number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return (number >> 11) / 2**53


def new_seed() -> int:
    """A seed for a request that names none."""
    return secrets.randbits(SEED_BITS)


def _truncated(probabilities: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Probabilities float [n, K] with zeros where top_k, top_p and min_p leave a token out."""
    count = probabilities.shape[-1]
    ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    place = torch.arange(count, device=ordered.device)
    kept = place < _column([min(one.top_k or count, count) for one in params], place)
    left = torch.where(kept, ordered, 0)
    left = left / left.sum(dim=-1, keepdim=True)
    before = left.cumsum(dim=-1) - left
    kept &= (before < _column([one.top_p for one in params], left)) | (place == 0)
    kept &= ordered >= _column([one.min_p for one in params], left) * ordered[:, :1]
    return torch.zeros_like(probabilities).scatter_(1, ids, torch.where(kept, ordered, 0))


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """[n, 1], of the type and on the device of another tensor."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _with_logprobs(token: int, params: SamplingParams, logprobs: torch.Tensor | None) -> Sampled:
    if logprobs is None:
        return Sampled(token)
    top: tuple[tuple[int, float], ...] = ()
    if params.top_logprobs:
        values, ids = logprobs.topk(params.top_logprobs)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Sampled(token, float(logprobs[token]), top)
