"""How an answer is to be made: a user's options, checked, and transformers' words for them.

In: keyword arguments. Out: an :class:`Options`, whose `generation_arguments` go to `generate`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypedDict, get_args

from flashsloth.inference import scalars
from flashsloth.inference.errors import PromptError
from flashsloth.inference.prompt import check_text
from flashsloth.inference.sampling import MAX_TOKENS, drawing_temperature
from flashsloth.media import ImagePolicy


class AnswerOptions(TypedDict, total=False):
    """Keyword arguments of every method that answers.

    Attributes:
        max_new_tokens: the longest answer, in tokens (512); less where the model's context ends before.
        temperature: 0 takes the likeliest token each time (the default); above 0 draws, the flatter the higher.
        top_p: draw only from the likeliest tokens that together have this probability (1: from all).
        image_policy: "careful" turns photographs upright and lays transparency on white; "official" is the published
            code's plain conversion to RGB.
        system: what opens the prompt in place of the model's own system text; "" for nothing.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    image_policy: ImagePolicy
    system: str | None


@dataclass(frozen=True)
class Options:
    """:class:`AnswerOptions` with every default filled in and every value checked."""

    max_new_tokens: int = MAX_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    image_policy: ImagePolicy = "careful"
    system: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_new_tokens", scalars.max_tokens("max_new_tokens", self.max_new_tokens))
        object.__setattr__(self, "temperature", scalars.temperature(self.temperature))
        object.__setattr__(self, "top_p", scalars.top_p(self.top_p))
        if self.image_policy not in get_args(ImagePolicy):
            known = ", ".join(get_args(ImagePolicy))
            raise PromptError(f"image_policy is {self.image_policy!r}; expected one of {known}")
        if self.system is not None and not isinstance(self.system, str):
            raise PromptError(f"system is {type(self.system).__name__}; expected a text, or None for the model's own")
        if self.system is not None:
            check_text("the system text", self.system)

    @classmethod
    def of(cls, given: AnswerOptions) -> Options:
        """The checked options of keyword arguments.

        Raises:
            TypeError: for a name that is not an option.
            PromptError: for a value that cannot be.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise TypeError(f"unknown option {name!r}; expected some of {', '.join(known)}")
        return cls(**given)

    @property
    def drawing_temperature(self) -> float:
        """What logits are divided by; only where `temperature` is above 0."""
        return drawing_temperature(self.temperature)

    @property
    def generation_arguments(self) -> dict[str, Any]:
        """What `generate` is told about choosing tokens; everything named, so no checkpoint's defaults leak in."""
        plain: dict[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0, "top_k": 0}
        if self.temperature == 0:
            return {**plain, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {**plain, "do_sample": True, "temperature": self.drawing_temperature, "top_p": self.top_p}
