"""Proof that a stage trains what it says: a table, after the first step that moves anything.

In: a model, before and after an optimizer step. Out: for each part its parameters, how many of them learn, their
learning rate, the norm of their gradient and how far they moved; an error if anything frozen moved, a warning if a part
that learns did not. With a warm-up the first step's learning rate is 0: the table then waits for the second.

Frozen tensors are compared by a sum over all of their bits. Of those that learn, a sample of :data:`SAMPLED` numbers
each is kept, since a copy of a whole model may not fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flashsloth.errors import FlashSlothError
from flashsloth.training import distributed
from flashsloth.training.guards import own_share
from flashsloth.training.stages import PARTS

SAMPLED = 4096
"""Numbers of each learning tensor whose movement is measured."""
OTHERS = "others"
"""What belongs to no part: heads that are only there while an encoder learns."""
HEADER = f"{'part':<15}{'parameters':>15}{'learning':>15}"
"""Above the lines of the table."""
_WRAPPERS = ("base_model.model.", "module.", "_orig_mod.")
"""What PEFT, data-parallel wrappers and compilation put before a parameter's name."""
_REPLACED = ".original_module."
"""In the name of what PEFT keeps of a module whose copy learns in its place; it is no part of the model that learns."""
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number -> the integers that read the same bits."""


class FrozenPartMovedError(FlashSlothError, ValueError):
    """Something moved that the stage does not train."""


@dataclass(frozen=True)
class PartRow:
    """One line of the table.

    Attributes:
        part: a name from `stages.PARTS`, or :data:`OTHERS`.
        parameters: numbers in it; a head that is tied counts with the language model, low-rank matrices with what
            they are put on.
        learning: how many of them learn.
        learning_rates: the smallest and the largest, or None where nothing learns.
        gradient_norm: before clipping, over all its learning parameters.
        moved: root mean square of the sampled numbers' change.
    """

    part: str
    parameters: int
    learning: int
    learning_rates: tuple[float, float] | None
    gradient_norm: float
    moved: float

    def line(self) -> str:
        """For the log."""
        size = f"{self.part:<15}{self.parameters:>15,}{self.learning:>15,}"
        if not self.parameters:
            return f"{size}   nothing of its own"
        if self.learning_rates is None:
            return f"{size}   frozen, and has not moved by a bit"
        rates = " to ".join(dict.fromkeys(f"{rate:.2e}" for rate in self.learning_rates))
        return f"{size}   learning rate {rates}, gradient {self.gradient_norm:.3g}, moved {self.moved:.3g}"


@dataclass
class _Before:
    """What a step found: learning tensors' samples, frozen tensors' bits, gradients' norms."""

    samples: dict[str, torch.Tensor]
    bits: dict[str, int]
    gradients: dict[str, float]


class PartsReport:
    """Watches one step of a model.

    Attributes:
        rows: the table, once it is made.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.rows: list[PartRow] = []
        self._before: _Before | None = None

    def look(self, optimizer: Any, clipped: float) -> None:
        """Before the optimizer's step.

        Args:
            optimizer: whose learning rates are read.
            clipped: what gradients were multiplied by; 1 for nothing.
        """
        if self.rows or max(group["lr"] for group in optimizer.param_groups) == 0:
            return
        self._before = _Before({}, {}, {})
        for name, parameter in self.model.named_parameters():
            values = own_share(parameter)
            if parameter.requires_grad:
                self._before.samples[name] = _sample(values).clone()
                norm = 0.0 if parameter.grad is None else float(own_share(parameter.grad).float().norm())
                self._before.gradients[name] = norm / clipped
            else:
                self._before.bits[name] = _bits(values)

    def compare(self, optimizer: Any) -> bool:
        """After it.

        Returns:
            Whether the table was made now.

        Raises:
            FrozenPartMovedError: naming the tensor.
        """
        before, self._before = self._before, None
        if before is None:
            return False
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        parts: dict[str, list[tuple[str, nn.Parameter]]] = {part: [] for part in (*PARTS, OTHERS)}
        for name, parameter in self.model.named_parameters():
            if name in before.bits and _bits(own_share(parameter)) != before.bits[name]:
                raise FrozenPartMovedError(
                    f"{name} is frozen, but the first step changed it: the stage must not train it"
                )
            parts[part_of(name)].append((name, parameter))
        self.rows = [_row(part, named, before, rates) for part, named in parts.items() if named or part != OTHERS]
        return True

    @property
    def unmoved(self) -> list[str]:
        """Parts that learn and have not moved."""
        return [row.part for row in self.rows if row.learning and row.moved == 0]


def part_of(name: str) -> str:
    """The part that a parameter belongs to, by its name in the model or in what wraps it."""
    while wrapper := next((wrapper for wrapper in _WRAPPERS if name.startswith(wrapper)), None):
        name = name.removeprefix(wrapper)
    return next((part for part, path in PARTS.items() if name.startswith(f"{path}.")), OTHERS)


def _row(part: str, named: list[tuple[str, nn.Parameter]], before: _Before, rates: dict[int, float]) -> PartRow:
    learning = [(name, parameter) for name, parameter in named if name in before.samples]
    used = [rates[id(parameter)] for _, parameter in learning if id(parameter) in rates]
    changes = [_sample(own_share(parameter)) - before.samples[name] for name, parameter in learning]
    sums = [
        float(sum(change.numel() for change in changes)),
        sum(float(change.float().square().sum()) for change in changes),
        sum(before.gradients[name] ** 2 for name, _ in learning),
    ]
    if any(hasattr(parameter, "to_local") for _, parameter in learning):  # each process has seen its own share
        sums = distributed.all_reduce_sum(sums, changes[0].device)
    total, squares, gradient_squares = sums
    return PartRow(
        part=part,
        parameters=sum(_numbers(parameter) for name, parameter in named if _REPLACED not in name),
        learning=sum(parameter.numel() for _, parameter in learning),
        learning_rates=(min(used), max(used)) if used else None,
        gradient_norm=math.sqrt(gradient_squares),
        moved=math.sqrt(squares / total) if total else 0.0,
    )


def _numbers(parameter: nn.Parameter) -> int:
    """How many a parameter stands for, also where several are packed into a byte (bitsandbytes)."""
    packing = getattr(parameter, "quant_state", None)
    return parameter.numel() if packing is None else math.prod(packing.shape)


def _sample(values: torch.Tensor) -> torch.Tensor:
    """At most `SAMPLED` numbers, spread over a tensor."""
    flat = values.reshape(-1)
    return flat[:: max(1, -(-len(flat) // SAMPLED))]


def _bits(values: torch.Tensor) -> int:
    """A sum over all bits."""
    integers = values.contiguous().view(_INTEGERS[values.element_size()])
    return int(integers.sum(dtype=torch.int64))
