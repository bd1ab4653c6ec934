"""A linear layer whose weight lies as the processor's matrix kernels want it.

In: a `torch.nn.Linear` in float32 or bfloat16 on a CPU. Out: a layer that computes the same, faster: oneDNN reorders a
plain weight at every call, or multiplies it by a slower kernel; here it is reordered once, and the plain copy is let
go. An activation that follows can be part of the product, on its float32 sums.

The operators are torch's own but private (`torch.ops.mkldnn`): where they are missing, `abilities.can_pack` says so
and the plain layer stays.

Legend: M rows, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from flashsloth.speed.errors import SpeedError

READING_ROWS = 5
"""Fewer rows than these are filled up, by repeating one, where a weight is read from memory: with five the kernel waits
less for it (on Zen 4 it reads a fifth to a quarter more bytes a second than with one, in either precision; with seven,
less)."""
READ_FROM_MEMORY = 4 * 2**20
"""Bytes of a weight from which on it is taken not to stay in a cache from one token to the next."""


class Activation(NamedTuple):
    """An activation in oneDNN's words: its name, and which formula of it."""

    name: str = "none"
    formula: str = ""


NO_ACTIVATION = Activation()


class PackedLinear(nn.Module):
    """`activation(x @ weight.T + bias)` with a packed weight. For inference: no gradient passes through it.

    Args:
        linear: the layer to replace; it keeps its weight, which is freed with it.
        activation: what is applied to the product.
    """

    def __init__(self, linear: nn.Linear, activation: Activation = NO_ACTIVATION) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.activation = activation
        self.dtype = linear.weight.dtype
        self._least_rows = READING_ROWS if linear.weight.nbytes >= READ_FROM_MEMORY else 1
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [..., K] -> float [..., N]."""
        refuse_gradients(x)
        rows = x.reshape(-1, self.in_features)  # [M, K]
        count = rows.shape[0]
        if 0 < count < self._least_rows:
            rows = torch.cat([rows, rows[:1].expand(self._least_rows - count, -1)])
        name, formula = self.activation
        output = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self.bias, name, [], formula)
        return output[:count].view(*x.shape[:-1], self.out_features)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied or sent to another process: the plain weight, since nothing else can read a packed one."""
        return {**self.__dict__, "_weight": self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    @property
    def weight(self) -> torch.Tensor:
        """A plain copy of the weight, [N, K], for who wants to look at it."""
        return self._weight.to_dense()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.dtype}, activation={self.activation.name}"

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """The weight as it was, so that a checkpoint of a packed model is an ordinary one."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], *args: Any, **kwargs: Any) -> PackedLinear:
        refuse_moves(fn, self.dtype)
        return super()._apply(fn, *args, **kwargs)


def refuse_gradients(x: torch.Tensor) -> None:
    """No gradient passes through packed or quantized weights; losing it silently would be worse than stopping."""
    if x.requires_grad and torch.is_grad_enabled():
        raise SpeedError(
            "this model's weights are packed for answering, and no gradient passes through them: load it with "
            "optimize=False to train it"
        )


def refuse_moves(fn: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> None:
    """Packed weights stay where they are, as they are: `to` another device or precision is a mistake."""
    moved = fn(torch.empty(0, dtype=dtype))
    if moved.dtype != dtype or moved.device.type != "cpu":
        raise SpeedError(
            f"weights packed for cpu in {dtype} cannot be moved to {moved.device} in {moved.dtype}: "
            f"load the model there, or with optimize=False"
        )


__all__ = ["NO_ACTIVATION", "Activation", "PackedLinear", "refuse_gradients", "refuse_moves"]
