"""How an answer is to be made: a user's options, checked.

In: keyword arguments. Out: :class:`Options`: the request's :class:`SamplingParams`, and what the prompt and the result
depend on beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict, get_args

from flashsloth.errors import PromptError
from flashsloth.inference import RESOLUTION_THRESHOLD
from flashsloth.inference.picture_resolution import AUTO, Resolution
from flashsloth.inference.prompt import check_text
from flashsloth.inference.sampling_params import SamplingParams, TokenMask
from flashsloth.media import ImagePolicy

ALIASES = {"max_new_tokens": "max_tokens"}
"""transformers' name -> ours."""


class AnswerOptions(TypedDict, total=False):
    """Keyword arguments of every method that answers.

    Attributes:
        max_tokens, temperature, top_p, top_k, min_p, seed, stop, logprobs, top_logprobs, presence_penalty,
            frequency_penalty, logit_bias, n, mask, deadline: see :class:`SamplingParams`.
        max_new_tokens: max_tokens by transformers' name.
        choices: texts to choose from, in place of an answer of the model's own; each gets a probability.
        per_token: judge choices by their tokens' mean, so that a long one is not the less likely for its length.
        attention: keep the attention in each picture.
        details: return an :class:`Answer`, and not its text alone; so do logprobs, choices, attention and n above 1.
        image_policy: "careful" turns photographs upright and lays transparency on white; "official" is the published
            code's plain conversion to RGB.
        system: what opens the prompt in place of the model's own system text; "" for nothing.
        resolution: of an HD model, "standard" shows it the whole view alone, "hd" all views (the default); "auto" the
            whole view, and all views where that answer is less sure than the threshold. Of other models, "standard".
        resolution_threshold: 0 to 1, for "auto" (see `picture_resolution.py`).
    """

    max_tokens: int
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    stop: str | Iterable[str]
    logprobs: bool
    top_logprobs: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    n: int
    mask: TokenMask | None
    deadline: float | None
    choices: Iterable[str]
    per_token: bool
    attention: bool
    details: bool
    image_policy: ImagePolicy
    system: str | None
    resolution: Resolution | None
    resolution_threshold: float


SAMPLING = {one.name: one.default for one in fields(SamplingParams)}
"""Each sampling parameter with its default."""


@dataclass(frozen=True)
class Options:
    """:class:`AnswerOptions` with every default filled in and every value checked.

    Attributes:
        params: how tokens are chosen.
        choices, per_token, attention, details, image_policy, system, resolution, resolution_threshold: as there.
    """

    params: SamplingParams = field(default_factory=SamplingParams)
    choices: tuple[str, ...] = ()
    per_token: bool = False
    attention: bool = False
    details: bool = False
    image_policy: ImagePolicy = "careful"
    system: str | None = None
    resolution: Resolution | None = None
    resolution_threshold: float = RESOLUTION_THRESHOLD

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", _choices(self.choices))
        for name in ("per_token", "attention", "details"):
            if not isinstance(getattr(self, name), bool):
                raise PromptError(f"{name} is {getattr(self, name)!r}; expected True or False")
        if self.image_policy not in get_args(ImagePolicy):
            known = ", ".join(get_args(ImagePolicy))
            raise PromptError(f"image_policy is {self.image_policy!r}; expected one of {known}")
        if self.system is not None:
            if not isinstance(self.system, str):
                raise PromptError(
                    f"system is {type(self.system).__name__}; expected a text, or None for the model's own"
                )
            check_text("the system text", self.system)
        self._require_effect()
        self._check_resolution()

    def _check_resolution(self) -> None:
        if self.resolution not in (None, *get_args(Resolution)):
            known = ", ".join(get_args(Resolution))
            raise PromptError(f"resolution is {self.resolution!r}; expected one of {known}, or None for all views")
        threshold = self.resolution_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise PromptError(f"resolution_threshold is {threshold!r}; expected a number from 0 to 1")
        if self.resolution == AUTO and self.params.n > 1:
            raise PromptError(f"n is {self.params.n} beside resolution {AUTO!r}, which one answer decides: leave n out")

    def _require_effect(self) -> None:
        """Refuse options that would change nothing.

        Raises:
            PromptError: for such options.
        """
        if self.per_token and not self.choices:
            raise PromptError("per_token is for choices, and none were given: leave it out")
        beside = [name for name in ("n", "temperature", "stop", "mask") if getattr(self.params, name) != SAMPLING[name]]
        if self.choices and beside:
            raise PromptError(f"{beside[0]} is for answers that are made, and choices are only scored: leave it out")

    @classmethod
    def of(cls, given: AnswerOptions) -> Options:
        """The checked options of keyword arguments.

        Raises:
            TypeError: for a name that is not an option.
            PromptError: for a value that cannot be.
        """
        own = {one.name for one in fields(cls)} - {"params"}
        named: dict[str, Any] = {}
        for name, value in given.items():
            plain = ALIASES.get(name, name)
            if plain not in {*SAMPLING, *own}:
                raise TypeError(f"unknown option {name!r}; expected some of {', '.join(sorted({*SAMPLING, *own}))}")
            if plain in named:
                raise PromptError(f"{plain} and {name} are the same option: give one of them")
            named[plain] = value
        params = SamplingParams(**{name: value for name, value in named.items() if name in SAMPLING})
        return cls(params, **{name: value for name, value in named.items() if name in own})

    @property
    def wants_details(self) -> bool:
        """Whether more than a text is returned."""
        return self.details or self.attention or self.params.logprobs or bool(self.choices) or self.params.n > 1

    def require_one_text(self, where: str) -> None:
        """Refuse what cannot come piece by piece.

        Raises:
            PromptError: for choices, and several answers.
        """
        if self.choices or self.params.n > 1:
            what = "choices" if self.choices else f"n={self.params.n}"
            raise PromptError(f"{where} gives one answer, and takes no {what}: call answer")


def _choices(given: Any) -> tuple[str, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise PromptError(f"choices is {type(given).__name__}; expected a list of texts")
    texts = tuple(given)
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise PromptError(f"choices holds {text!r}; expected texts that are not empty")
        check_text("a choice", text)
    if len(set(texts)) < len(texts):
        raise PromptError("choices holds a text twice; expected each once")
    return texts
