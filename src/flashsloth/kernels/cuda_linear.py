"""Linear layers with weights of four bits on CUDA: fewer bytes to read for each generated token.

In: a `torch.nn.Linear` in bfloat16 on a device. Out: a layer that computes nearly the same from a quarter of the bytes,
by torch's tensor-core product of packed weights. (Eight bits are the same layer everywhere: :class:`Int8Linear`.)

torchao's weight-only layers run the same product. It is called here itself, since its packing rounds a layer's inputs
up to a multiple of 1024, and Phi-2's 2560 would be read as 3072; and since it is one package less.

Fewer bits win where few rows are multiplied, and lose where many are: for large batches take weights of sixteen bits.

Legend: M rows, K inputs, N outputs.
"""

from __future__ import annotations

import torch
from torch import nn

from flashsloth.kernels.capabilities import can_multiply_int4_on
from flashsloth.kernels.cpu_linear import QuantizedLinear, int4_levels

DEVICE_GROUP_SIZE = 64
"""Inputs of an output that share a scale and a zero."""
INNER_TILES = 8
"""How the product cuts a weight's inputs: so many tiles of `TILE_INPUTS` at a time."""
TILE_INPUTS, TILE_OUTPUTS = 16, 8


class DeviceInt4Linear(QuantizedLinear):
    """Four bits a weight, a scale and a zero for every :data:`DEVICE_GROUP_SIZE` inputs of an output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        levels, self.scale_and_zero = int4_levels(linear.weight.detach(), self.dtype, DEVICE_GROUP_SIZE)
        self.weight_int4 = torch.ops.aten._convert_weight_to_int4pack(two_a_byte(levels), INNER_TILES)

    @staticmethod
    def takes(linear: nn.Linear) -> bool:
        """Whether the product can multiply this layer's shape, in its precision, here."""
        fits = linear.in_features % (INNER_TILES * TILE_INPUTS) == 0 and linear.out_features % TILE_OUTPUTS == 0
        return fits and can_multiply_int4_on(linear.weight.device, linear.weight.dtype)

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_int4pack_mm(rows, self.weight_int4, DEVICE_GROUP_SIZE, self.scale_and_zero)


def two_a_byte(levels: torch.Tensor) -> torch.Tensor:
    """uint8 [N, K / 2] of levels int32 [N, K]: the first of each two in the high half."""
    return (levels[:, ::2] << 4 | levels[:, 1::2]).to(torch.uint8).contiguous()
