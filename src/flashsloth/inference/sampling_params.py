"""What one request asks of its answer: sampling parameters, and every value of them checked.

In: keyword arguments; numbers may come from Python, numpy or torch. Out: :class:`SamplingParams` of Python's own.

Legend: K vocabulary.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flashsloth.errors import PromptError
from flashsloth.inference import MAX_TOKENS
from flashsloth.inference.prompt import check_text

if TYPE_CHECKING:
    import torch

TokenMask = Callable[[Sequence[int]], "torch.Tensor"]
"""Tokens of an answer so far -> bool [K], true where a token may follow."""

SEED_BITS = 63
MOST_LOGPROBS = 20
MOST_ANSWERS = 128
MOST_STOPS = 16
MOST_STOP_CHARACTERS = 256
"""Of one: at every token the answer's last characters are compared with those of each stop text."""
LARGEST_PENALTY = 2.0
LARGEST_BIAS = 100.0


@dataclass(frozen=True)
class SamplingParams:
    """What one request asks of its answer; every value is checked.

    Attributes:
        max_tokens: the longest answer, its end token counted; less where the model's context ends before.
        temperature: 0 takes the likeliest token each time; above 0 draws, the flatter the higher.
        top_p: draw only from the likeliest tokens that together have this probability (1: from all).
        top_k: draw only from so many likeliest tokens (0: from all).
        min_p: draw only from tokens with at least this share of the likeliest one's probability.
        seed: of the draws; None for one that is chosen and reported.
        stop: texts that end an answer; they are not part of it.
        logprobs: whether the log-probability of each token is kept.
        top_logprobs: how many likeliest tokens are kept beside each token, with `logprobs`.
        presence_penalty, frequency_penalty: subtracted from the logit of a token that the answer holds already, once,
            and once for each time.
        logit_bias: token id -> what is added to its logit.
        n: how many answers are made.
        mask: which tokens may follow; see :data:`TokenMask`.
        deadline: seconds from when the request is added, waiting included; None for no end.

    Raises:
        PromptError: for a value that cannot be.
    """

    max_tokens: int = MAX_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    n: int = 1
    mask: TokenMask | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        penalty = -LARGEST_PENALTY, LARGEST_PENALTY, f"{-LARGEST_PENALTY:g} to {LARGEST_PENALTY:g}"
        checked = {
            "max_tokens": whole_number("max_tokens", self.max_tokens, 1),
            "temperature": real_number("temperature", self.temperature, 0, expected="0 (likeliest token) or more"),
            "top_p": real_number("top_p", self.top_p, 0, 1, "more than 0 and at most 1", above_least=True),
            "top_k": whole_number("top_k", self.top_k, 0),
            "min_p": real_number("min_p", self.min_p, 0, 1, "0 to 1"),
            "seed": None if self.seed is None else whole_number("seed", self.seed, 0, 2**SEED_BITS - 1),
            "stop": _stop_texts(self.stop),
            "top_logprobs": whole_number("top_logprobs", self.top_logprobs, 0, MOST_LOGPROBS),
            "presence_penalty": real_number("presence_penalty", self.presence_penalty, *penalty),
            "frequency_penalty": real_number("frequency_penalty", self.frequency_penalty, *penalty),
            "logit_bias": _logit_bias(self.logit_bias),
            "n": whole_number("n", self.n, 1, MOST_ANSWERS),
            "deadline": None
            if self.deadline is None
            else real_number("deadline", self.deadline, 0, expected="seconds, more than 0", above_least=True),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if not isinstance(self.logprobs, bool):
            raise PromptError(f"logprobs is {self.logprobs!r}; expected True or False")
        if self.top_logprobs and not self.logprobs:
            raise PromptError(f"top_logprobs is {self.top_logprobs} without logprobs; expected logprobs=True beside it")
        if self.mask is not None and not callable(self.mask):
            raise PromptError(f"mask is {type(self.mask).__name__}; expected a function of the tokens so far")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, and nothing has to be done to the logits before."""
        adjusted = self.logit_bias or self.presence_penalty or self.frequency_penalty
        return self.temperature == 0 and not (adjusted or self.logprobs) and self.mask is None


def _stop_texts(stop: Any) -> tuple[str, ...]:
    """Stop strings, of one text or several.

    Raises:
        PromptError: for anything else, and for an empty text.
    """
    texts = (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, Iterable) or isinstance(texts, bytes):
        raise PromptError(f"stop is {type(stop).__name__}; expected a text or a list of texts")
    found = tuple(itertools.islice(texts, MOST_STOPS + 1))
    if len(found) > MOST_STOPS:
        raise PromptError(f"stop holds more than {MOST_STOPS} texts; expected at most so many")
    for text in found:
        if not isinstance(text, str) or not text:
            raise PromptError(f"stop holds {text!r}; expected texts that are not empty")
        if len(text) > MOST_STOP_CHARACTERS:
            raise PromptError(
                f"stop holds a text of {len(text):,} characters; expected at most {MOST_STOP_CHARACTERS} of each"
            )
        check_text("a stop text", text)
    return found


def _logit_bias(given: Any) -> dict[int, float]:
    """What is added to which token's logit.

    Raises:
        PromptError: for anything but token ids with numbers from -100 to 100.
    """
    if not isinstance(given, Mapping):
        raise PromptError(f"logit_bias is {type(given).__name__}; expected token ids with numbers")
    found = {}
    for token, bias in given.items():
        limits = -LARGEST_BIAS, LARGEST_BIAS, f"{-LARGEST_BIAS:g} to {LARGEST_BIAS:g}"
        number = real_number(f"logit_bias[{token!r}]", bias, *limits)
        found[whole_number("a token of logit_bias", token)] = number
    return found


def whole_number(
    name: str,
    value: Any,
    least: int | None = None,
    most: int | None = None,
    *,
    error: type[ValueError] = PromptError,
) -> int:
    """An int, from Python, numpy or a tensor of one.

    Raises:
        PromptError, or another `error`: for anything else, and beyond the limits; True and False are not numbers.
    """
    expected = "a whole number"
    if least is not None:
        expected += f" of at least {least}" if most is None else f" from {least} to {most}"
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Integral):
        raise error(f"{name} is {value!r}; expected {expected}")
    number = int(plain)
    if (least is not None and number < least) or (most is not None and number > most):
        raise error(f"{name} is {number}; expected {expected}")
    return number


def real_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    expected: str = "",
    *,
    above_least: bool = False,
) -> float:
    """A finite float, from Python, numpy or a tensor of one.

    Args:
        name: what an error calls it.
        value: what was given.
        least, most: its limits.
        expected: the limits in words.
        above_least: whether the least itself is too little.

    Raises:
        PromptError: for anything else, and beyond the limits; True and False are not numbers.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise PromptError(f"{name} is {value!r}; expected a number")
    try:
        number = float(plain)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PromptError(f"{name} is {value!r}; expected a number that is finite")
    if not least <= number <= most or (above_least and number == least):
        raise PromptError(f"{name} is {number}; expected {expected}")
    return number


def _plain(value: Any) -> Any:
    """What numpy and torch hold as one number."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
