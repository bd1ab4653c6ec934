"""What every group of keys of a recipe has: strict fields, each of which says what `--resume` does with a new value.

In: nothing. Out: the base of the recipe's models, the kinds of numbers in them, and :class:`RecipeError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from flashsloth.strict_model import StrictModel


class RecipeError(ValueError):
    """A mistake in a recipe."""


@dataclass(frozen=True)
class OnResume:
    """What becomes of a run that goes on with another value of a field.

    Attributes:
        kind: `free`: nothing that is learned depends on it; `from_here`: it holds from the step at which the run goes
            on; `fixed`: it is refused.
        why: of what is refused.
    """

    kind: Literal["free", "from_here", "fixed"]
    why: str = ""


FREE = OnResume("free")
FROM_HERE = OnResume("from_here")


def fixed(why: str) -> OnResume:
    """Refused on resume, and why: a clause."""
    return OnResume("fixed", why)


class RecipeModel(StrictModel):
    """A group of a recipe's keys; every field stands beside :data:`FREE`, :data:`FROM_HERE` or :func:`fixed`."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        silent = [name for name in cls.model_fields if cls.on_resume(name) is None]
        if silent:
            raise TypeError(f"{cls.__name__}.{', '.join(silent)}: say FREE, FROM_HERE or fixed(why), for --resume")

    @classmethod
    def on_resume(cls, name: str) -> OnResume | None:
        """What a field says of itself."""
        return next((rule for rule in cls.model_fields[name].metadata if isinstance(rule, OnResume)), None)


MOST = 1_000_000_000
"""Of what is counted: more is a slip, and needs more memory than there is to be refused in time."""
Count = Annotated[int, Field(ge=1, le=MOST)]
Samples = Annotated[int, Field(ge=1, le=1_000_000)]
"""In a step."""
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Room is left below 2**32 for what steps and processes add to it."""
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]

__all__ = [
    "FREE", "FROM_HERE", "BelowOne", "Count", "NotNegative", "OnResume", "Positive", "RecipeError", "RecipeModel",
    "Samples", "Seed", "Share", "fixed",
]  # fmt: skip
