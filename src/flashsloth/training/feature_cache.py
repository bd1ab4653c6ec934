"""What a recipe says of features on disk: a stage's `feature_cache:` group."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from flashsloth.training.recipe_fields import FREE, Positive, RecipeModel, fixed

Dtype = Literal["bfloat16", "float32"]
DTYPES = get_args(Dtype)


class FeatureCache(RecipeModel):
    """A stage's `feature_cache:` group."""

    folder: Annotated[str, Field(min_length=1), FREE]
    """Where files are kept, by this run and others."""
    max_gb: Annotated[Positive, FREE]
    """How many 1e9 bytes all files in it may have; what does not fit is computed each time."""
    dtype: Annotated[Dtype, fixed("features would be rounded otherwise than before")] = "bfloat16"
    """`bfloat16` (1.68 MB a picture at the published size) or `float32`."""


__all__ = ["DTYPES", "FeatureCache"]
