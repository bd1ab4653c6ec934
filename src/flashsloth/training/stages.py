"""The stages of training, as a table: what trains, how fast, on how much, and how its text is written.

In: a stage's name. Out: its row. A recipe names a row and overrides what differs. The rows `alignment`, `instruction`
and `instruction_hd` are the paper's (FlashSloth, section 4.1; flashsloth's `scripts/` in the published code);
`encoder` teaches an encoder from scratch on drawn pictures, where no pretrained one can be had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

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


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    Attributes:
        trains: names from :data:`PARTS`; everything else is frozen.
        objective: `answers` (next-token cross-entropy on the answers) or `patches` (what each patch of a drawn picture
            shows).
        template: `chat`, `plain` (stage 1: picture and caption only), or `published_chat` (a space before the query
            tokens, as the published training text has).
        learning_rate: peak, for AdamW.
        batch_size: samples an optimizer step, over all devices and accumulation.
        epochs: passes over the data, where the recipe gives no `steps`.
        warmup: share of the steps.
        schedule: transformers' name of the learning-rate schedule.
        weight_decay, adam_beta2: AdamW's.
        optimizer: `adamw`, or `muon` for the matrices of transformer blocks (see `optimizer.py`).
        max_length: tokens; a longer sample is an error that names it.
        patch_loss: weight of the patches' loss beside the answers', for drawn pictures; 0 for none.
    """

    trains: tuple[str, ...]
    objective: Literal["answers", "patches"]
    template: Template
    learning_rate: float
    batch_size: int
    epochs: float = 1.0
    warmup: float = 0.03
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    optimizer: Optimizer = "adamw"
    max_length: int = 3072
    patch_loss: float = 0.0

    @property
    def learns_answers(self) -> bool:
        """Whether its objective is `answers`."""
        return self.objective == "answers"


_INSTRUCTED = ("projector", "sap", "query_tokens", "embq", "language_model", "head")

STAGES: dict[str, Stage] = {
    "encoder": Stage(("vision_encoder",), "patches", "plain", learning_rate=1e-3, batch_size=64),
    "alignment": Stage(("projector", "sap"), "answers", "plain", learning_rate=1e-3, batch_size=256),
    "instruction": Stage(_INSTRUCTED, "answers", "published_chat", learning_rate=2e-5, batch_size=128),
    "instruction_hd": Stage(
        (*_INSTRUCTED, "vision_encoder"), "answers", "published_chat", learning_rate=2e-5, batch_size=128
    ),
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


__all__ = ["PARTS", "STAGES", "Stage", "freeze_all_but"]
