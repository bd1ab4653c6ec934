"""A user's numbers, whichever library they come from, as Python's own, within their limits."""

from __future__ import annotations

import math
import numbers
from typing import Any

from flashsloth.errors import PromptError


def whole_number(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """An int, from Python, numpy or a tensor of one.

    Raises:
        PromptError: for anything else, and beyond the limits; True and False are no numbers.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Integral):
        raise PromptError(f"{name} is {value!r}; expected a whole number")
    number = int(plain)
    if (least is not None and number < least) or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise PromptError(f"{name} is {number}; expected {limits}")
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
        PromptError: for anything else, and beyond the limits; True and False are no numbers.
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


def max_tokens(name: str, value: Any) -> int:
    """How many tokens an answer may have."""
    return whole_number(name, value, 1)


def temperature(value: Any) -> float:
    """How flat a draw is."""
    return real_number("temperature", value, 0, expected="0 (likeliest token) or more")


def top_p(value: Any) -> float:
    """The joint probability of what is drawn from."""
    return real_number("top_p", value, 0, 1, "more than 0 and at most 1", above_least=True)


def _plain(value: Any) -> Any:
    """What numpy and torch hold as one number."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


__all__ = ["max_tokens", "real_number", "temperature", "top_p", "whole_number"]
