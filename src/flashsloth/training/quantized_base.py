"""A frozen language model in four bits, for QLoRA (Dettmers et al. 2023, arXiv 2305.14314): NF4 by bitsandbytes.

In: a model and the names of linear layers. Out: the same model, each of them a `bitsandbytes.nn.Linear4bit`: blocks
of 64 weights share a scale, scales are themselves kept in eight bits, and a layer unpacks its weight when it is used.
Gradients pass through to what came before; the packed weight has none.

On CUDA devices these are bitsandbytes' kernels, on a processor its plain ones, which need only torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flashsloth.adapters.folder import AdapterError

BLOCK_SIZE = 64
"""Weights that share a scale. On a processor bitsandbytes mixes up the scales of rows that are no whole blocks."""
QLORA_EXTRA = "pip install 'flashsloth[qlora]'"
_INFERENCE_FLAG = "support_avx512bf16_for_cpu"
"""Where it is set, bitsandbytes repacks a weight at the first evaluation on a processor, for a kernel that has no
gradients: what trains after that would get none."""


def quantize_layers(model: nn.Module, names: list[str], compute_dtype: torch.dtype) -> None:
    """Exchange linear layers for four-bit ones, in place; they compute in `compute_dtype`.

    Raises:
        AdapterError: where bitsandbytes is not installed, or a layer's rows are not whole blocks.
    """
    bitsandbytes = require_bitsandbytes()
    widths = {name: _linear(model, name).in_features for name in names}
    ragged = [f"{name} ({width})" for name, width in widths.items() if width % BLOCK_SIZE]
    if ragged:
        raise AdapterError(
            f"quantize: nf4 needs layers of a multiple of {BLOCK_SIZE} inputs, unlike {ragged[0]}: use none"
        )
    for name in names:  # one by one, so that each makes room for the next
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _packed(bitsandbytes, _linear(model, name), compute_dtype))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT asks for it before it looks at the layers


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def _packed(bitsandbytes: Any, layer: nn.Linear, compute_dtype: torch.dtype) -> Any:
    """One layer, packed where it is; on another device it is moved packed."""
    packed = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=compute_dtype,
        quant_type="nf4",
        compress_statistics=True,
        device="meta",
    )
    packed.weight = bitsandbytes.nn.Params4bit(
        layer.weight.data,
        requires_grad=False,
        quant_type="nf4",
        blocksize=BLOCK_SIZE,
        compress_statistics=True,
        module=packed,
    )
    packed.bias = layer.bias
    packed = packed.to(layer.weight.device)
    setattr(packed, _INFERENCE_FLAG, False)
    return packed


def require_bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise AdapterError(f"quantize: nf4 needs bitsandbytes: {QLORA_EXTRA}") from error
    return bitsandbytes


__all__ = ["quantize_layers", "require_bitsandbytes"]
