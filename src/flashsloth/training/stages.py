"""The stages of training, as a table: what trains, how fast, on how much, and how its text is written.

In: a stage's name. Out: its row. A recipe names a row and overrides what differs. The rows `alignment`, `instruction`
and `instruction_hd` are the paper's (FlashSloth, section 4.1; flashsloth's `scripts/` in the published code);
`encoder` teaches an encoder from scratch on drawn pictures, where no pretrained one can be had.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from flashsloth.strict_model import Problem, found
from flashsloth.training.recipe_fields import (
    FROM_HERE,
    MOST,
    BelowOne,
    Count,
    NotNegative,
    Positive,
    RecipeModel,
    Samples,
    fixed,
)

Part = Literal["vision_encoder", "sap", "projector", "query_tokens", "embq", "language_model", "head"]
Template = Literal["plain", "chat", "published_chat"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup", "warmup_stable_decay"]

PARTS: dict[str, str] = {
    "vision_encoder": "model.vision_tower",
    "sap": "model.spatial_attention_pooling",
    "projector": "model.projector",
    "query_tokens": "model.query_tokens",
    "embq": "model.embedded_query",
    "language_model": "model.language_model",
    "head": "lm_head",
}
"""What a stage can train, by the module that holds it."""
DECAY_SHARE = 0.1
"""Of the steps, at the end, in which the schedule `warmup_stable_decay` falls to zero."""
PATCH_LEARNERS: tuple[Part, ...] = ("vision_encoder",)
QUERY_PARTS = ("query_tokens", "embq")
"""Parts that work for a question's query tokens, which text without questions has none of."""


class Stage(RecipeModel):
    """One row of the table; a recipe may change all of it but the objective."""

    trains: Annotated[
        tuple[Part, ...], Field(min_length=1, strict=False), fixed("the optimizer holds averages of other parameters")
    ]
    """Parts that learn; everything else is frozen."""
    objective: Annotated[Literal["answers", "patches"], fixed("it is the stage's own")]
    """`answers` (next-token cross-entropy on the answers) or `patches` (what each patch of a drawn picture shows)."""
    template: Annotated[Template, fixed("the text of every sample would be another")]
    """`chat`, `plain` (stage 1: picture and caption only), or `published_chat` (a space before the query tokens, as the
    published training text has)."""
    learning_rate: Annotated[Positive, FROM_HERE]
    """The highest, for AdamW."""
    batch_size: Annotated[Samples, fixed("steps would learn from other samples")]
    """Samples an optimizer step, over all devices and accumulation."""
    epochs: Annotated[float, Field(gt=0, le=MOST), FROM_HERE] = 1.0
    """Passes over the data, where the recipe gives no `steps`."""
    warmup: Annotated[BelowOne, FROM_HERE] = 0.03
    """Share of the steps in which the learning rate rises."""
    schedule: Annotated[Schedule, FROM_HERE] = "cosine"
    """transformers' name of the learning-rate schedule; `warmup_stable_decay` falls in the last tenth of the steps."""
    weight_decay: Annotated[NotNegative, FROM_HERE] = 0.0
    """AdamW's."""
    adam_beta2: Annotated[BelowOne, FROM_HERE] = 0.999
    """AdamW's."""
    optimizer: Annotated[Optimizer, fixed("its averages would be another optimizer's")] = "adamw"
    """`adamw`, or `muon` for the matrices of transformer blocks."""
    max_length: Annotated[Count, fixed("other samples would be too long")] = 3072
    """Tokens; a longer sample is a bad one."""
    patch_loss: Annotated[NotNegative, fixed("another loss would be learned from")] = 0.0
    """Weight of the patches' loss beside the answers', for drawn pictures; 0 for none."""

    def problems(self) -> Iterator[Problem]:
        if len(set(self.trains)) < len(self.trains):
            yield Problem(("trains",), f"found {found(self.trains)}, which names a part twice")
        if self.patch_loss and not self.learns_answers:
            yield Problem(
                ("patch_loss",), "goes beside the loss of answers, and this stage learns patches: leave it out"
            )

        if not self.learns_answers and self.trains != PATCH_LEARNERS:
            said = f"found {', '.join(self.trains)}, but patches teach {PATCH_LEARNERS[0]} alone"
            yield Problem(("trains",), said)
        idle = [part for part in self.trains if part in QUERY_PARTS]
        if idle and self.learns_answers and self.template == "plain":
            said = f"found {' and '.join(idle)}, which template plain has no use for: choose chat, or leave them out"
            yield Problem(("trains",), said, (("template",),))
        if self.weight_decay * self.learning_rate >= 1:
            said = f"found {self.weight_decay:g}, which times learning_rate, {self.learning_rate:g}, is 1 or more: a "
            yield Problem(("weight_decay",), f"{said}step would leave nothing of the weights", (("learning_rate",),))

    @property
    def learns_answers(self) -> bool:
        """Whether its objective is `answers`."""
        return self.objective == "answers"


_INSTRUCTED: tuple[Part, ...] = ("projector", "sap", "query_tokens", "embq", "language_model", "head")
_INSTRUCTION: dict[str, Any] = {
    "objective": "answers",
    "template": "published_chat",
    "learning_rate": 2e-5,
    "batch_size": 128,
}

STAGES: dict[str, Stage] = {
    "encoder": Stage(
        trains=("vision_encoder",), objective="patches", template="plain", learning_rate=1e-3, batch_size=64
    ),
    "alignment": Stage(
        trains=("projector", "sap"), objective="answers", template="plain", learning_rate=1e-3, batch_size=256
    ),
    "instruction": Stage(trains=_INSTRUCTED, **_INSTRUCTION),
    "instruction_hd": Stage(trains=(*_INSTRUCTED, "vision_encoder"), **_INSTRUCTION),
}


def freeze_all_but(model: nn.Module, trains: tuple[str, ...]) -> int:
    """Let the named parts learn and freeze the rest.

    Returns:
        How many parameters learn.

    Raises:
        ValueError: for a name that is not in :data:`PARTS`.
    """
    unknown = sorted(set(trains) - set(PARTS))
    if unknown:
        raise ValueError(f"trains names {unknown}, expected some of {sorted(PARTS)}")
    model.requires_grad_(False)
    for name in trains:
        model.get_submodule(PARTS[name]).requires_grad_(True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


__all__ = ["DECAY_SHARE", "PARTS", "STAGES", "Stage", "freeze_all_but"]
