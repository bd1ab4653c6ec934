"""Whether a language model's layers keep keys and values, and nothing else, of every position.

In: its configuration. Out: an empty cache, or None. Sliding windows, recurrent and hybrid layers keep something else:
then positions of unlike answers cannot stand side by side, and beginnings cannot be shared.
"""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def plain_cache(text_config: Any) -> DynamicCache | None:
    """An empty cache of transformers' whose layers hold keys and values alone; None where a model keeps more."""
    cache = DynamicCache(config=text_config)
    return cache if all(type(layer) is DynamicLayer for layer in cache.layers) else None


__all__ = ["plain_cache"]
