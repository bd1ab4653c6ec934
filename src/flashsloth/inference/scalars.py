"""A user's numbers, whichever library they come from, as Python's own."""

from __future__ import annotations

import math
import numbers
from typing import Any

from flashsloth.inference.errors import PromptError


def whole_number(name: str, value: Any) -> int:
    """An int, from Python, numpy or a tensor of one.

    Raises:
        PromptError: for anything else; True and False are no numbers.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Integral):
        raise PromptError(f"{name} is {value!r}; expected a whole number")
    return int(plain)


def real_number(name: str, value: Any) -> float:
    """A finite float, from Python, numpy or a tensor of one.

    Raises:
        PromptError: for anything else; True and False are no numbers.
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
    return number


def _plain(value: Any) -> Any:
    """What numpy and torch hold as one number."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


__all__ = ["real_number", "whole_number"]
