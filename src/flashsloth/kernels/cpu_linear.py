"""Linear layers that answer faster: a weight packed for the processor's matrix kernels, or stored in fewer bits.

In: a `torch.nn.Linear`. Out: a layer through which no gradient passes.

:class:`PackedLinear`, float32 or bfloat16 on a CPU, computes the same: oneDNN reorders a plain weight at every call, or
multiplies it by a slower kernel; here it is reordered once, and the plain copy is let go. An activation that follows
can be part of the product, on its float32 sums. The operators are torch's own but private (`torch.ops.mkldnn`): where
they are missing, `abilities.can_pack` says so and the plain layer stays.

:class:`QuantizedLinear` computes nearly the same from a half or a quarter of bfloat16's bytes, which a generated token
has to read. Weights are rounded to the nearest step (no calibration data); activations stay as they are.

    int8   one scale an output          w = q * scale                      -127..127
    int4   scale and zero a group       w = (q - 8) * scale + zero         0..15, GROUP_SIZE inputs of an output

The products are torch's own operators for a few rows. Those take a row after the other, so where a prompt brings many,
or the operator is missing, as on CUDA, int8 weights are widened and multiplied the ordinary way. (torchao's eight-bit
weights are widened at every call on a CPU, and its four-bit ones for CPUs are a prototype over the same operator.)

Legend: M rows, K inputs, N outputs, G groups of an output's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from flashsloth.errors import SpeedError
from flashsloth.kernels.capabilities import can_multiply

READING_ROWS = 5
"""Fewer rows than these are filled up, by repeating one, where a weight is read from memory: with five the kernel waits
less for it (on Zen 4 it reads a fifth to a quarter more bytes a second than with one, in either precision; with seven,
less)."""
READ_FROM_MEMORY = 4 * 2**20
"""Bytes of a weight from which on it is taken not to stay in a cache from one token to the next."""

INT8_LARGEST = 127
INT4_LARGEST, INT4_MIDDLE = 15, 8
GROUP_SIZE = 32
INT4_OUTPUTS_STEP = 16
"""The four-bit operator takes outputs in multiples of this."""
WIDEN_ROWS = 12
"""From this many rows on, widening int8 weights costs less than the operator's row after row."""
SMALLEST_SCALE = 1e-8


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
        refuse_moves(fn, torch.device("cpu"), self.dtype)
        return super()._apply(fn, *args, **kwargs)


def refuse_gradients(x: torch.Tensor) -> None:
    """No gradient passes through packed or quantized weights; losing it silently would be worse than stopping."""
    if x.requires_grad and torch.is_grad_enabled():
        raise SpeedError(
            "this model's weights are packed for answering, and no gradient passes through them: load it with "
            "optimize=False to train it"
        )


def refuse_moves(fn: Callable[[torch.Tensor], torch.Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """Packed weights stay where they are, as they are: `to` another device or precision is a mistake."""
    held = torch.empty(0, dtype=dtype, device=device)
    moved = fn(held)
    if moved.dtype != dtype or (moved.device.type, moved.get_device()) != (device.type, held.get_device()):
        raise SpeedError(
            f"weights packed for {device} in {dtype} cannot be moved to {moved.device} in {moved.dtype}: "
            f"load the model there, or with optimize=False"
        )


class QuantizedLinear(nn.Module):
    """What all precisions share. For inference: no gradient passes through, and nothing can be saved."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.device, self.dtype = linear.weight.device, linear.weight.dtype
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [..., K] -> float [..., N]."""
        refuse_gradients(x)
        output = self._product(x.reshape(-1, self.in_features).contiguous())  # [M, N]
        if self.bias is not None:
            output += self.bias
        return output.view(*x.shape[:-1], self.out_features)

    @property
    def weight(self) -> torch.Tensor:
        """The weight that is computed with, as a plain copy [N, K], for who wants to look at it."""
        return self.dequantized().to(self.dtype)

    def dequantized(self) -> torch.Tensor:
        """The weight that is computed with, float32 [N, K]."""
        # The packed order is the operator's own; multiplying ones with it gives the weight back, column by column.
        identity = torch.eye(self.in_features, dtype=self.dtype, device=self.device)
        return self._product(identity).float().T

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        raise SpeedError("a quantized model cannot be saved: load it without quantize, and save that")

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], *args: Any, **kwargs: Any) -> QuantizedLinear:
        refuse_moves(fn, self.device, self.dtype)
        return super()._apply(fn, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, computes in {self.dtype}"


class Int8Linear(QuantizedLinear):
    """Eight bits a weight, one scale an output; on any device."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        largest = weight.abs().amax(dim=1).float()  # [N]
        # The scale is rounded first, so that rounding it costs nothing.
        self.scale = (largest / INT8_LARGEST).clamp_min(SMALLEST_SCALE).to(self.dtype)  # [N]
        steps = (weight.float() / self.scale.float()[:, None]).round_()
        self.weight_int8 = steps.clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)  # [N, K]
        self._widen_rows = WIDEN_ROWS if self.device.type == "cpu" and can_multiply("int8", self.dtype) else 0

    def dequantized(self) -> torch.Tensor:
        return self.weight_int8.float() * self.scale.float()[:, None]

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        if len(rows) < self._widen_rows:
            return torch.ops.aten._weight_int8pack_mm(rows, self.weight_int8, self.scale)
        return F.linear(rows, self.weight_int8.to(self.dtype)) * self.scale  # small whole numbers: exact


class Int4Linear(QuantizedLinear):
    """Four bits a weight, a scale and a zero for every :data:`GROUP_SIZE` inputs of an output.

    Raises:
        SpeedError: if K or N is not a multiple of what the operator takes; see :meth:`takes`.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        if not self.takes(linear):
            raise SpeedError(
                f"a layer of {linear.in_features} inputs and {linear.out_features} outputs cannot have int4 weights: "
                f"expected multiples of {GROUP_SIZE} and {INT4_OUTPUTS_STEP}"
            )
        levels, self.scale_and_zero = int4_levels(linear.weight.detach(), self.dtype, GROUP_SIZE)
        self.weight_int4 = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)  # uint8 [N, K/2]

    @staticmethod
    def takes(linear: nn.Linear) -> bool:
        """Whether the operator can multiply this layer's shape."""
        return linear.in_features % GROUP_SIZE == 0 and linear.out_features % INT4_OUTPUTS_STEP == 0

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight_int4, GROUP_SIZE, self.scale_and_zero)


def int4_levels(weight: torch.Tensor, dtype: torch.dtype, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels 0..15, int32 [N, K], of a weight [N, K], with scale and zero of each group, [G, N, 2] in `dtype`."""
    groups = weight.float().unflatten(1, (-1, group_size))  # [N, G, group]
    lowest, highest = groups.amin(dim=-1), groups.amax(dim=-1)  # [N, G]
    scale = ((highest - lowest) / INT4_LARGEST).clamp_min(SMALLEST_SCALE).to(dtype)
    zero = (lowest + INT4_MIDDLE * scale.float()).to(dtype)
    steps = ((groups - zero.float()[..., None]) / scale.float()[..., None]).round_() + INT4_MIDDLE
    levels = steps.clamp_(0, INT4_LARGEST).to(torch.int32).flatten(1)
    return levels, torch.stack([scale, zero], dim=-1).transpose(0, 1).contiguous()
