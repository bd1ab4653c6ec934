"""How a model's numbers are stored, and so how many bytes a pass reads.

In: the type that is computed in, and the language model's quantization if any (see `flashsloth.speed`). Out: a
:class:`Precision` that weighs matrices, scales included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flashsloth.benchmark.tower import Matrix
from flashsloth.speed.quantized_linear import GROUP_SIZE, INT4_OUTPUTS_STEP

INT4_A_BYTE = 2
INT4_SCALES = 2
"""A scale and a zero for each group."""


@dataclass(frozen=True)
class Precision:
    """What numbers are stored as.

    Attributes:
        dtype: what is computed in, and stored where nothing is quantized.
        quantize: "int8" or "int4" for the language model's matrices; None for none.
    """

    dtype: torch.dtype
    quantize: str | None = None

    @property
    def computed(self) -> str:
        """The type that is computed in: "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def stored(self) -> str:
        """The type of most weights that a generated token reads: "bfloat16" or "int4"."""
        return self.quantize or self.computed

    @property
    def itemsize(self) -> int:
        """Bytes of a number that is not quantized."""
        return self.dtype.itemsize

    def matrix_bytes(self, matrix: Matrix) -> int:
        """Bytes of one of the language model's matrices."""
        if self.quantize is None or not matrix.is_linear:
            return matrix.size * self.itemsize
        if self.quantize == "int4" and matrix.inputs % GROUP_SIZE == 0 and matrix.outputs % INT4_OUTPUTS_STEP == 0:
            groups = matrix.size // GROUP_SIZE
            return matrix.size // INT4_A_BYTE + groups * INT4_SCALES * self.itemsize
        return self._int8_bytes(matrix)

    def head_bytes(self, matrix: Matrix) -> int:
        """Bytes of the head's matrix, which keeps eight bits where the others have four."""
        return matrix.size * self.itemsize if self.quantize is None else self._int8_bytes(matrix)

    def _int8_bytes(self, matrix: Matrix) -> int:
        return matrix.size + matrix.outputs * self.itemsize  # one scale an output


__all__ = ["Precision"]
