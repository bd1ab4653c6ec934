"""A model made faster in place, for answering: the one place that knows which path is fast where.

In: a model, ready to answer. Out: the same model with other layers inside. On a CPU:

    every linear layer        its weight packed once for oneDNN, an activation after it fused in (cpu_linear.py)
    the encoder's attention   bfloat16: three plain operations; float32: torch's fused one       (attention.py)
    a step's attention        one query: plain operations                                        (attention.py)
    quantize="int8", "int4"   the language model's weights in fewer bits                         (cpu_linear.py)

On CUDA only the last of these (int4 by another product, cuda_linear.py); passes are replayed there, see
`inference/engine/cuda_graph.py`.

Only the language model is quantized: its weights are read for every token. The encoder reads its own once a picture,
and gains nothing. The head keeps eight bits where the rest has four.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal, TypeGuard, get_args

import torch
from torch import nn

from flashsloth.errors import SpeedError
from flashsloth.kernels.attention import ONE_QUERY, PLAIN
from flashsloth.kernels.capabilities import can_multiply, can_multiply_int4_on, can_pack
from flashsloth.kernels.cpu_linear import NO_ACTIVATION, Activation, Int4Linear, Int8Linear, PackedLinear
from flashsloth.kernels.cuda_linear import DeviceInt4Linear
from flashsloth.model.loss import LanguageModelHead
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

logger = logging.getLogger(__name__)

Quantization = Literal["int8", "int4"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)

WORTH_PACKING = 1 << 19
"""Weights of a layer that gains from being packed; for smaller ones the call itself takes longer than the product."""
_HEAD = "lm_head"
_LINEAR_FORWARDS = (nn.Linear.forward, LanguageModelHead.forward)
"""What layers do that are nothing but a linear layer when they answer."""
_GELU_TANH, _GELU, _RELU = Activation("gelu", "tanh"), Activation("gelu", "none"), Activation("relu", "")
_ACTIVATIONS = {
    "GELUTanh": _GELU_TANH,
    "PytorchGELUTanh": _GELU_TANH,
    "NewGELUActivation": _GELU_TANH,
    "GELUActivation": _GELU,
    "ReLU": _RELU,
}
"""Activation modules of transformers and torch that oneDNN can fuse, by their class's name."""


def speed_up(model: FlashSlothForConditionalGeneration, *, quantize: Quantization | None = None) -> None:
    """Make a model answer faster, in place.

    Args:
        model: on its device, in its precision; afterwards it answers, but cannot be trained or moved.
        quantize: fewer bits for the language model's weights; None for none.

    Raises:
        SpeedError: if the model cannot be quantized here.
    """
    quantize = check_quantization(quantize)
    if quantize is not None:
        _check_products(model, quantize)
        quantize_weights(model, quantize, Int4Linear if model.device.type == "cpu" else DeviceInt4Linear)
    if model.device.type != "cpu":
        return  # what else is fast there is how passes are made: see inference/engine/cuda_graph.py
    model.requires_grad_(False)
    if can_pack(model.dtype):
        _fuse_activations(model)
        for parent, name, linear in _linear_layers(model):
            if linear.weight.numel() >= WORTH_PACKING:
                setattr(parent, name, PackedLinear(linear))
    else:
        logger.warning("this torch has no packed products in %s here: plain ones are used", model.dtype)
    tower = model.model.vision_tower
    if model.dtype == torch.bfloat16 and tower.config._attn_implementation == "sdpa":
        tower.set_attn_implementation(PLAIN)
    language_model = model.model.language_model
    if language_model.config._attn_implementation == "sdpa":
        language_model.set_attn_implementation(ONE_QUERY)


def check_quantization(quantize: str | None) -> Quantization | None:
    """A user's word for a quantization, if it is one.

    Raises:
        SpeedError: if it is not one.
    """
    for known in QUANTIZATIONS:
        if quantize == known:
            return known
    if quantize is not None:
        raise SpeedError(f"quantize is {quantize!r}; expected one of {', '.join(QUANTIZATIONS)}, or None")
    return None


def quantize_weights(
    model: FlashSlothForConditionalGeneration, quantize: Quantization, four_bits: type[Int4Linear | DeviceInt4Linear]
) -> None:
    """Replace the linear layers of the language model, and the head; `four_bits` where a layer's shape allows it."""
    model.requires_grad_(False)
    for parent, name, linear in _linear_layers(model.model.language_model):
        fits = quantize == "int4" and four_bits.takes(linear)
        setattr(parent, name, four_bits(linear) if fits else Int8Linear(linear))
    setattr(model, _HEAD, Int8Linear(model.lm_head))


def _check_products(model: FlashSlothForConditionalGeneration, quantize: Quantization) -> None:
    """Refuse weights that nothing here can multiply.

    Raises:
        SpeedError: on a device that has none of these products, or not with four bits.
    """
    device, dtype = model.device, model.dtype
    if device.type not in ("cpu", "cuda"):
        raise SpeedError(f"quantize={quantize!r} works on cpu and cuda, and the model is on {device}")
    if device.type == "cuda":
        if quantize == "int4" and not can_multiply_int4_on(device, dtype):
            raise SpeedError(
                f"quantize='int4' needs bfloat16 and an NVIDIA GPU of the Ampere generation or later, and the model is "
                f"in {dtype} on {torch.cuda.get_device_name(device)}: use quantize='int8'"
            )
        return
    if quantize == "int4" and not can_multiply(quantize, dtype):
        raise SpeedError(f"quantize='int4' has no products in {dtype} here: use quantize='int8'")
    if not can_multiply("int8", dtype):
        logger.warning("this torch has no products of int8 weights in %s here: they are widened each time", dtype)


def _fuse_activations(model: nn.Module) -> None:
    """Where a block is `fc2(activation_fn(fc1(x)))`, make the activation a part of `fc1`."""
    for block in model.modules():
        first, activation = getattr(block, "fc1", None), getattr(block, "activation_fn", None)
        fused = _ACTIVATIONS.get(type(activation).__name__, NO_ACTIVATION)
        if fused == NO_ACTIVATION or first is None or not _is_plain(first) or not hasattr(block, "fc2"):
            continue
        if first.weight.numel() >= WORTH_PACKING:
            block.fc1, block.activation_fn = PackedLinear(first, fused), nn.Identity()


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Every plain linear layer with its parent and its name there; one at a time, so that memory can be freed."""
    parents = [
        module for module in model.modules() if any(module.children()) and not isinstance(module, nn.MultiheadAttention)
    ]
    for parent in parents:
        for name in [name for name, _ in parent.named_children()]:
            child = getattr(parent, name)
            if _is_plain(child):
                yield parent, name, child
            del child


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether this is a linear layer that does what `nn.Linear` does, and nothing around it."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return isinstance(module, nn.Linear) and type(module).forward in _LINEAR_FORWARDS and not any(hooks)
