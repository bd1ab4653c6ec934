"""What this processor, with this torch, can do for a fast model: asked here, and nowhere else.

In: the processor, torch's operators, and what lowers them, so that every machine can stand in for a lesser one:

    ONEDNN_MAX_CPU_ISA    oneDNN's ceiling, such as AVX2: packed weights, and products in bfloat16
    ATEN_CPU_CAPABILITY   torch's ceiling, avx2 or default: its own kernels
    FLASHSLOTH_WITHOUT    names of abilities, with commas between: what is taken to be missing

Out: yes or no, for each :class:`Capability`. An operator is tried before it is used, since many are private to torch:
it must exist, run in that precision, and give the right numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from functools import cache

import torch

from flashsloth.errors import SpeedError

ONEDNN_CEILING, WITHOUT = "ONEDNN_MAX_CPU_ISA", "FLASHSLOTH_WITHOUT"
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Names under which processors say that they multiply bfloat16 themselves."""
ONEDNN_BFLOAT16 = ("DEFAULT", "BF16", "FP16", "AMX", "AVX10")
"""Parts of the names of oneDNN's ceilings under which it multiplies bfloat16 with the processor's own instructions."""
INT4_CAPABILITY = (8, 0)
"""The first generation of CUDA devices whose tensor cores torch has a four-bit product for."""
TRIED_INPUTS, TRIED_OUTPUTS = 32, 16
"""The size of a layer that is tried: what all operators take."""
FAILURES = (AttributeError, RuntimeError, NotImplementedError)
"""What an operator raises that is missing, or lacks a precision."""


class Capability(StrEnum):
    """What a path needs of a processor, by the names that `FLASHSLOTH_WITHOUT` takes."""

    PACKED_FLOAT32 = "packed-float32"  # weights in oneDNN's own order
    PACKED_BFLOAT16 = "packed-bfloat16"
    INT8 = "int8"  # products of quantized weights
    INT4 = "int4"
    BFLOAT16 = "bfloat16"  # multiplied by the processor itself, and not as float32


_PACKED = {torch.float32: Capability.PACKED_FLOAT32, torch.bfloat16: Capability.PACKED_BFLOAT16}


def missing() -> list[Capability]:
    """What this processor lacks; of quantized weights, where it lacks them in float32 or in bfloat16."""
    packed = {name: can_pack(dtype) for dtype, name in _PACKED.items()}
    quantized = {
        name: all(can_multiply(name, dtype) for dtype in _PACKED) for name in (Capability.INT8, Capability.INT4)
    }
    found = {**packed, **quantized, Capability.BFLOAT16: multiplies_bfloat16()}
    return [ability for ability, is_there in found.items() if not is_there]


def can_pack(dtype: torch.dtype) -> bool:
    """Whether weights of this precision can be packed for oneDNN, with an activation after the product."""
    return dtype in _PACKED and _PACKED[dtype] not in without() and _packs(dtype)


def can_multiply(quantize: str, dtype: torch.dtype) -> bool:
    """Whether torch multiplies numbers of this precision by weights of `int8` or `int4` on this processor."""
    product = _int8_product if quantize == Capability.INT8 else _int4_product
    return Capability(quantize) not in without() and _is_right(product, dtype)


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, and is let: else it takes longer than float32."""
    ceiling = os.environ.get(ONEDNN_CEILING, "DEFAULT").upper()
    if Capability.BFLOAT16 in without() or not any(part in ceiling for part in ONEDNN_BFLOAT16):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in CPU_BFLOAT16)


def can_multiply_int4_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has the four-bit product for this CUDA device and precision."""
    return (
        device.type == "cuda"
        and dtype == torch.bfloat16
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= INT4_CAPABILITY
    )


def without() -> set[Capability]:
    """What the environment says is missing.

    Raises:
        SpeedError: where it names something else.
    """
    names = [name.strip().lower() for name in os.environ.get(WITHOUT, "").split(",") if name.strip()]
    unknown = [name for name in names if name not in list(Capability)]
    if unknown:
        raise SpeedError(
            f"{WITHOUT} names {unknown[0]!r}; expected some of {', '.join(Capability)}, with commas between"
        )
    return {Capability(name) for name in names}


@cache
def _packs(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    weight, ones = torch.ones(TRIED_OUTPUTS, TRIED_INPUTS, dtype=dtype), torch.ones(1, TRIED_INPUTS, dtype=dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        product = torch.ops.mkldnn._linear_pointwise(ones, packed, None, "gelu", [], "tanh")
        return torch.equal(packed.to_dense(), weight) and bool((product == TRIED_INPUTS).all())
    except FAILURES:
        return False


@cache
def _is_right(product: Callable[[torch.dtype], torch.Tensor], dtype: torch.dtype) -> bool:
    try:
        return bool((product(dtype) == TRIED_INPUTS).all())
    except FAILURES:
        return False


def _int8_product(dtype: torch.dtype) -> torch.Tensor:
    """Ones by ones: `TRIED_INPUTS` everywhere."""
    weight, scale = torch.ones(TRIED_OUTPUTS, TRIED_INPUTS, dtype=torch.int8), torch.ones(TRIED_OUTPUTS, dtype=dtype)
    return torch.ops.aten._weight_int8pack_mm(torch.ones(1, TRIED_INPUTS, dtype=dtype), weight, scale)


def _int4_product(dtype: torch.dtype) -> torch.Tensor:
    """The same; a level of nine stands for one, where the scale is one and the zero nothing."""
    levels = torch.full((TRIED_OUTPUTS, TRIED_INPUTS), 9, dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
    scale_and_zero = torch.tensor([1, 0], dtype=dtype).expand(1, TRIED_OUTPUTS, 2).contiguous()
    ones = torch.ones(1, TRIED_INPUTS, dtype=dtype)
    return torch.ops.aten._weight_int4pack_mm_for_cpu(ones, packed, TRIED_INPUTS, scale_and_zero)
