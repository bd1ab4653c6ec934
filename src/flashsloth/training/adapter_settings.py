"""What a recipe says of an adapter: a stage's `adapter:` group."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flashsloth.strict_model import Expected
from flashsloth.training.recipe_fields import FROM_HERE, BelowOne, Positive, RecipeModel, fixed

AUTO = "auto"
UNQUANTIZED, NF4 = "none", "nf4"
TARGETED_PART, HEAD = "language_model", "head"
"""The part that learns through the adapter, and the one that rests unless it is asked for."""
LARGEST_RANK = 65_536
_MATRICES = "the adapter's matrices would be others"
_LayerName = Annotated[str, Field(min_length=1)]
_Targets = Literal["auto"] | Annotated[list[_LayerName], Field(min_length=1)]


class AdapterSettings(RecipeModel):
    """LoRA on the language model: y = W x + alpha / rank * B (A dropout(x)), with W frozen."""

    rank: Annotated[int, Field(ge=1, le=LARGEST_RANK), fixed(_MATRICES)] = 64
    """Rows of A and columns of B."""
    alpha: Annotated[Positive | None, fixed("what the adapter has learned would count differently")] = None
    """How much of B A counts; null for twice the rank."""
    dropout: Annotated[BelowOne, FROM_HERE] = 0.05
    """Share of x that A does not see in a step."""
    targets: Annotated[
        _Targets, Expected("auto or a list of layers' names, such as [q_proj, v_proj]"), fixed(_MATRICES)
    ] = "auto"
    """`auto` for every linear layer inside the decoder's blocks, or a list of such layers' names (`q_proj`)."""
    quantize: Annotated[Literal["none", "nf4"], fixed("the base that the adapter learns beside would be another")] = (
        "none"
    )
    """`nf4` holds those layers' W in four bits while the adapter learns (QLoRA, the `qlora` extra)."""
    learning_rate: Annotated[Positive | None, FROM_HERE] = None
    """Of A and B; null for the stage's, which the fully trained parts have in any case."""

    @property
    def scale(self) -> float:
        """What alpha is, given or not."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


__all__ = ["AUTO", "HEAD", "NF4", "TARGETED_PART", "UNQUANTIZED", "AdapterSettings"]
