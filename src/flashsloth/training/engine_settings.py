"""What a recipe says of devices: a stage's `engine:` group.

kind     a device holds of                       weights   gradients   optimizer
ddp      the model, whole                        all       all         all
fsdp2    each layer's share (torch)              1/n       1/n         1/n
zero2    weights whole (DeepSpeed)               all       1/n         1/n
zero3    each parameter's share (DeepSpeed)      1/n       1/n         1/n
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from flashsloth.strict_model import Problem
from flashsloth.training.recipe_fields import FREE, RecipeModel, fixed

Kind = Literal["ddp", "fsdp2", "zero2", "zero3"]
KINDS = get_args(Kind)
DDP, FSDP2, ZERO2, ZERO3 = KINDS
DEEPSPEED_STAGES = {ZERO2: 2, ZERO3: 3}
_SHARES = "checkpoints hold weights and optimizer in other shares"


class Engine(RecipeModel):
    """A stage's `engine:` group."""

    kind: Annotated[Kind, fixed(_SHARES)] = "ddp"
    """How the stage is laid out over devices."""
    offload: Annotated[bool, fixed(_SHARES)] = False
    """Keep in the processor's memory what the step does not need at once: weights, gradients and optimizer under fsdp2
    and zero3, the optimizer under zero2."""
    reshard_after_forward: Annotated[bool, FREE] = True
    """fsdp2: give a layer's weights back after its forward pass and fetch them again for backward. False keeps them,
    for less traffic and more memory."""

    def problems(self) -> Iterator[Problem]:
        if self.offload and self.kind == DDP:
            yield Problem(
                ("offload",), f"found true, which {DDP} cannot: choose {FSDP2}, {ZERO2} or {ZERO3}", (("kind",),)
            )
        if not self.reshard_after_forward and self.kind != FSDP2:
            said = f"found false, which only {FSDP2} knows, but kind is {self.kind}"
            yield Problem(("reshard_after_forward",), said, (("kind",),))

    @property
    def is_deepspeed(self) -> bool:
        """Whether DeepSpeed is needed."""
        return self.kind in DEEPSPEED_STAGES


__all__ = ["DDP", "DEEPSPEED_STAGES", "FSDP2", "KINDS", "ZERO2", "ZERO3", "Engine"]
