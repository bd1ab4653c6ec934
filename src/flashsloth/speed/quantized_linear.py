"""Linear layers with weights of eight or four bits: fewer bytes to read for each generated token.

In: a `torch.nn.Linear` on a CPU. Out: a layer that computes nearly the same from a half or a quarter of bfloat16's
bytes. Weights are rounded to the nearest step (no calibration data); activations stay as they are.

    int8   one scale an output          w = q * scale                      -127..127
    int4   scale and zero a group       w = (q - 8) * scale + zero         0..15, GROUP_SIZE inputs of an output

The products are torch's own operators for a few rows. Those take a row after the other, so where a prompt brings many,
or the operator is missing, int8 weights are widened once and multiplied the ordinary way. (torchao's eight-bit weights
are widened at every call on a CPU, and its four-bit ones for CPUs are a prototype over the same operator.)

Legend: M rows, K inputs, N outputs, G groups of an output's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from flashsloth.speed.abilities import can_multiply
from flashsloth.speed.errors import SpeedError
from flashsloth.speed.packed_linear import refuse_gradients, refuse_moves

INT8_LARGEST = 127
INT4_LARGEST, INT4_MIDDLE = 15, 8
GROUP_SIZE = 32
INT4_OUTPUTS_STEP = 16
"""The four-bit operator takes outputs in multiples of this."""
WIDEN_ROWS = 12
"""From this many rows on, widening int8 weights costs less than the operator's row after row."""
SMALLEST_SCALE = 1e-8


class QuantizedLinear(nn.Module):
    """What both precisions share. For inference: no gradient passes through, and nothing can be saved."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
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
        raise NotImplementedError

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        raise SpeedError("a quantized model cannot be saved: load it without quantize, and save that")

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], *args: Any, **kwargs: Any) -> QuantizedLinear:
        refuse_moves(fn, self.dtype)
        return super()._apply(fn, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, computes in {self.dtype}"


class Int8Linear(QuantizedLinear):
    """Eight bits a weight, one scale an output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        largest = weight.abs().amax(dim=1).float()  # [N]
        # The scale is rounded first, so that rounding it costs nothing.
        self.scale = (largest / INT8_LARGEST).clamp_min(SMALLEST_SCALE).to(self.dtype)  # [N]
        steps = (weight.float() / self.scale.float()[:, None]).round_()
        self.weight_int8 = steps.clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)  # [N, K]
        self._widen_rows = WIDEN_ROWS if can_multiply("int8", self.dtype) else 0

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
        groups = linear.weight.detach().float().unflatten(1, (-1, GROUP_SIZE))  # [N, G, GROUP_SIZE]
        lowest, highest = groups.amin(dim=-1), groups.amax(dim=-1)  # [N, G]
        scale = ((highest - lowest) / INT4_LARGEST).clamp_min(SMALLEST_SCALE).to(self.dtype)
        zero = (lowest + INT4_MIDDLE * scale.float()).to(self.dtype)
        steps = ((groups - zero.float()[..., None]) / scale.float()[..., None]).round_() + INT4_MIDDLE
        levels = steps.clamp_(0, INT4_LARGEST).to(torch.int32).flatten(1)  # [N, K]
        self.weight_int4 = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)  # uint8 [N, K/2]
        self.scale_and_zero = torch.stack([scale, zero], dim=-1).transpose(0, 1).contiguous()  # [G, N, 2]

    @staticmethod
    def takes(linear: nn.Linear) -> bool:
        """Whether the operator can multiply this layer's shape."""
        return linear.in_features % GROUP_SIZE == 0 and linear.out_features % INT4_OUTPUTS_STEP == 0

    def dequantized(self) -> torch.Tensor:
        # The packed order is the operator's own; multiplying ones with it gives the weight back, column by column.
        identity = torch.eye(self.in_features, dtype=self.dtype)
        return self._product(identity).float().T

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight_int4, GROUP_SIZE, self.scale_and_zero)


__all__ = ["GROUP_SIZE", "Int4Linear", "Int8Linear", "QuantizedLinear"]
