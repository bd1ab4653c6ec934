"""What a recipe says of an adapter: a stage's `adapter:` group, checked before anything is loaded.

In: the values of the group, and the stage that it stands in. Out: :class:`AdapterSettings`, or what is wrong, in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flashsloth.training.stages import Stage

AUTO = "auto"
UNQUANTIZED, NF4 = "none", "nf4"
QUANTIZATIONS = (UNQUANTIZED, NF4)
MAX_DROPOUT = 1.0
TARGETED_PART, HEAD = "language_model", "head"
"""The part that learns through the adapter, and the one that rests unless it is asked for."""


@dataclass(frozen=True)
class AdapterSettings:
    """LoRA on the language model: y = W x + alpha / rank * B (A dropout(x)), with W frozen.

    Attributes:
        rank: rows of A and columns of B.
        alpha: how much of B A counts; None for twice the rank.
        dropout: share of x that A does not see in a step.
        targets: `auto` for every linear layer inside the decoder's blocks, or a list of such layers' names (`q_proj`).
        quantize: `none`, or `nf4` to hold those layers' W in four bits while the adapter learns (QLoRA).
        learning_rate: of A and B; None for the stage's, which the fully trained parts have in any case.
    """

    rank: int = 64
    alpha: float | None = None
    dropout: float = 0.05
    targets: Any = AUTO
    quantize: str = UNQUANTIZED
    learning_rate: float | None = None

    @property
    def scale(self) -> float:
        """What alpha is, given or not."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def problem(self) -> str | None:
        """What is wrong with the values, after the group's own name; None if nothing is."""
        if self.rank < 1:
            return f"rank is {self.rank}, expected at least 1"
        if self.scale <= 0:
            return f"alpha is {self.alpha}, expected a number above 0"
        if not 0 <= self.dropout < MAX_DROPOUT:
            return f"dropout is {self.dropout}, expected at least 0 and less than 1"
        if self.quantize not in QUANTIZATIONS:
            return f"quantize is {self.quantize!r}, expected one of {list(QUANTIZATIONS)}"
        if self.learning_rate is not None and self.learning_rate <= 0:
            return f"learning_rate is {self.learning_rate}, expected a number above 0"
        if self.targets != AUTO and not _is_names(self.targets):
            return f"targets is {self.targets!r}, expected 'auto' or a list of layers' names, such as [q_proj, v_proj]"
        return None


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)


def stage_problem(stage: Stage) -> str | None:
    """Why a stage can have no adapter; None if it can."""
    if TARGETED_PART not in stage.trains:
        return f"is for a stage that trains {TARGETED_PART}, and this one trains {list(stage.trains)}"
    if stage.patch_loss:
        return f"does not go with patch_loss ({stage.patch_loss}): leave one of them out"
    return None


__all__ = ["AUTO", "HEAD", "NF4", "UNQUANTIZED", "AdapterSettings", "stage_problem"]
