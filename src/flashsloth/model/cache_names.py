"""What versions of transformers call the keys and values of earlier passes: `past_key_values`, and since 5.24 `cache`.

In: models, outputs and arguments of whichever version is installed. Out: the keys and values, or the name to give them
by. Nothing else in the package knows that the names differ.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE_NAMES = ("cache", "past_key_values")
"""Newest first."""
CACHE_NAME = next(name for name in CACHE_NAMES if name in {field.name for field in fields(BaseModelOutputWithPast)})
"""What the installed transformers calls it in its outputs, and in what `generate` hands to a model."""


def cache_argument(language_model: Any) -> str:
    """What a language model's `forward` calls keys and values: by a name that is known, or as what takes a `Cache`.

    Raises:
        ValueError: if it takes none.
    """
    parameters = inspect.signature(language_model.forward).parameters
    known = (name for name in CACHE_NAMES if name in parameters)
    typed = (name for name, parameter in parameters.items() if "Cache" in str(parameter.annotation))
    found = next(known, None) or next(typed, None)
    if found is None:
        raise ValueError(
            f"{type(language_model).__name__} takes no keys and values of earlier passes: FlashSloth needs a "
            f"decoder-only language model of transformers with attention and positions"
        )
    return found


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The keys and values that came under either name.

    Raises:
        ValueError: if two came.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("give cache or past_key_values, not both: they are two names of the same thing")
    if past_key_values is not None and CACHE_NAME != "past_key_values":
        warnings.warn("`past_key_values` is deprecated in transformers: give `cache`", FutureWarning, stacklevel=3)
    return past_key_values if cache is None else cache


__all__ = ["CACHE_NAME", "CACHE_NAMES", "cache_argument", "one_cache"]
