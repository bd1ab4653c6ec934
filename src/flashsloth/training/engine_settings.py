"""What a recipe says of devices: a stage's `engine:` group, checked before anything is loaded.

In: the values of the group. Out: :class:`Engine`, or what is wrong, in words.

    kind     a device holds of                       weights   gradients   optimizer
    ddp      the model, whole                        all       all         all
    fsdp2    each layer's share (torch)              1/n       1/n         1/n
    zero2    weights whole (DeepSpeed)               all       1/n         1/n
    zero3    each parameter's share (DeepSpeed)      1/n       1/n         1/n
"""

from __future__ import annotations

from dataclasses import dataclass

DDP, FSDP2, ZERO2, ZERO3 = "ddp", "fsdp2", "zero2", "zero3"
KINDS = (DDP, FSDP2, ZERO2, ZERO3)
DEEPSPEED_STAGES = {ZERO2: 2, ZERO3: 3}


@dataclass(frozen=True)
class Engine:
    """A stage's `engine:` group.

    Attributes:
        kind: one of :data:`KINDS`.
        offload: keep in the processor's memory what the step does not need at once: weights, gradients and optimizer
            under fsdp2 and zero3, the optimizer under zero2.
        reshard_after_forward: fsdp2 only: give a layer's weights back after its forward pass and fetch them again for
            backward. False keeps them, for less traffic and more memory.
    """

    kind: str = DDP
    offload: bool = False
    reshard_after_forward: bool = True

    def problem(self, optimizer: str) -> str | None:
        """What is wrong with the values, with this optimizer, after the group's own name; None if nothing is."""
        if self.kind not in KINDS:
            return f"kind is {self.kind!r}, expected one of {', '.join(KINDS)}"
        if self.offload and self.kind == DDP:
            return f"offload is true, which {DDP} cannot: choose {FSDP2}, {ZERO2} or {ZERO3}"
        if not self.reshard_after_forward and self.kind != FSDP2:
            return f"reshard_after_forward is false, which only {FSDP2} knows, but kind is {self.kind}"
        if optimizer == "muon" and self.kind != DDP:
            return f"kind is {self.kind}, but muon needs whole matrices on every device: choose {DDP}, or adamw"
        return None

    @property
    def is_deepspeed(self) -> bool:
        """Whether DeepSpeed is needed."""
        return self.kind in DEEPSPEED_STAGES


__all__ = ["DDP", "DEEPSPEED_STAGES", "FSDP2", "KINDS", "ZERO2", "ZERO3", "Engine"]
