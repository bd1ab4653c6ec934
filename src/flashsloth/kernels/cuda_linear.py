"""Linear layers with weights of eight or four bits on CUDA: fewer bytes to read for each generated token.

In: a `torch.nn.Linear` on a device. Out: a layer that computes nearly the same from a half or a quarter of bfloat16's
bytes. Weights are rounded to the nearest step, as on a processor (`quantized_linear.py`).

    int8   widened where it is multiplied: compiled, torch makes one kernel of both that reads eight bits a weight
    int4   torch's tensor-core product of packed weights, in bfloat16

torchao's weight-only layers run the same two products. They are called here themselves, since its packing rounds a
layer's inputs up to a multiple of 1024, and Phi-2's 2560 would be read as 3072; and since it is one package less.

Both win where few rows are multiplied, and lose where many are: for large batches take weights of sixteen bits.

Legend: M rows, K inputs, N outputs, G groups of an output's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from flashsloth.errors import SpeedError
from flashsloth.kernels.abilities import can_multiply_int4_on
from flashsloth.kernels.cpu_linear import INT4_LARGEST, INT4_MIDDLE, INT8_LARGEST, SMALLEST_SCALE, QuantizedLinear

DEVICE_GROUP_SIZE = 64
"""Inputs of an output that share a scale and a zero."""
INNER_TILES = 8
"""How the product cuts a weight's inputs: so many tiles of `TILE_INPUTS` at a time."""
TILE_INPUTS, TILE_OUTPUTS = 16, 8


class DeviceQuantizedLinear(QuantizedLinear):
    """What both precisions share on a device: they stay where they are, as they are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.device = linear.weight.device

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], *args: Any, **kwargs: Any) -> DeviceQuantizedLinear:
        moved = fn(torch.empty(0, dtype=self.dtype, device=self.device))
        if moved.dtype != self.dtype or moved.device != self.device:
            raise SpeedError(
                f"weights quantized for {self.device} in {self.dtype} cannot be moved to {moved.device} in "
                f"{moved.dtype}: load the model there"
            )
        return self


class DeviceInt8Linear(DeviceQuantizedLinear):
    """Eight bits a weight, one scale an output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        scale = (weight.abs().amax(dim=1).float() / INT8_LARGEST).clamp_min(SMALLEST_SCALE)
        self.scale = scale.to(self.dtype)  # [N]
        steps = (weight.float() / self.scale.float()[:, None]).round_()
        self.weight_int8 = steps.clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)  # [N, K]

    def dequantized(self) -> torch.Tensor:
        return self.weight_int8.float() * self.scale.float()[:, None]

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        return F.linear(rows, self.weight_int8.to(rows.dtype)) * self.scale


class DeviceInt4Linear(DeviceQuantizedLinear):
    """Four bits a weight, a scale and a zero for every :data:`DEVICE_GROUP_SIZE` inputs of an output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        levels, self.scale_and_zero = int4_levels(linear.weight.detach(), self.dtype)
        self.weight_int4 = torch.ops.aten._convert_weight_to_int4pack(two_a_byte(levels), INNER_TILES)

    @staticmethod
    def takes(linear: nn.Linear) -> bool:
        """Whether the product can multiply this layer's shape, in its precision, here."""
        fits = linear.in_features % (INNER_TILES * TILE_INPUTS) == 0 and linear.out_features % TILE_OUTPUTS == 0
        return fits and can_multiply_int4_on(linear.weight.device, linear.weight.dtype)

    def dequantized(self) -> torch.Tensor:
        # The packed order is the operator's own; multiplying ones with it gives the weight back, column by column.
        identity = torch.eye(self.in_features, dtype=self.dtype, device=self.device)
        return self._product(identity).float().T

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_int4pack_mm(rows, self.weight_int4, DEVICE_GROUP_SIZE, self.scale_and_zero)


def int4_levels(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels 0..15, int32 [N, K], of a weight [N, K], with scale and zero of each group, [G, N, 2] in `dtype`.

    A weight is (level - 8) * scale + zero.
    """
    groups = weight.float().unflatten(1, (-1, DEVICE_GROUP_SIZE))  # [N, G, group]
    lowest, highest = groups.amin(dim=-1), groups.amax(dim=-1)  # [N, G]
    scale = ((highest - lowest) / INT4_LARGEST).clamp_min(SMALLEST_SCALE).to(dtype)
    zero = (lowest + INT4_MIDDLE * scale.float()).to(dtype)
    steps = ((groups - zero.float()[..., None]) / scale.float()[..., None]).round_() + INT4_MIDDLE
    levels = steps.clamp_(0, INT4_LARGEST).to(torch.int32).flatten(1)
    return levels, torch.stack([scale, zero], dim=-1).transpose(0, 1).contiguous()


def two_a_byte(levels: torch.Tensor) -> torch.Tensor:
    """uint8 [N, K / 2] of levels int32 [N, K]: the first of each two in the high half."""
    return (levels[:, ::2] << 4 | levels[:, 1::2]).to(torch.uint8).contiguous()


__all__ = [
    "DEVICE_GROUP_SIZE",
    "DeviceInt4Linear",
    "DeviceInt8Linear",
    "int4_levels",
    "two_a_byte",
]
