"""Models of true size with random weights, made in memory: speed does not depend on what the weights say.

In: a function that constructs a model in the wanted precision, a device and a seed. Out: the model, every parameter
drawn, every buffer (rotary frequencies, positions) as its own constructor makes it.

Drawing billions of normal numbers takes minutes. One block of them is drawn, and laid into the parameters like tiles,
one after the other; its length is a prime, so that no two rows of a matrix are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

BLOCK_NUMBERS = 1_048_583
"""A prime; two megabytes of bfloat16, which stay in a processor's cache while they are copied."""
STANDARD_DEVIATION = 0.02
"""As language models are initialized: large enough to matter, small enough that nothing overflows."""
NORM = "Norm"
"""What the classes of normalizing layers have in their names."""

Model = TypeVar("Model", bound=nn.Module)


def make_random(make: Callable[[], Model], device: torch.device, seed: int) -> Model:
    """Construct a model and draw its weights.

    Args:
        make: constructs it; runs where parameters are left as the memory happened to be.
        device: where.
        seed: the same seed, the same weights.
    """
    with torch.device(device), no_init_weights():
        model = make()
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.can_generate():
            module.tie_weights()  # which is part of the initialization that was left out
    draw_weights(model, seed)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def draw_weights(model: nn.Module, seed: int) -> None:
    """Draw every parameter, in place: norms become ones (and zeros), everything else normal numbers."""
    fixed = _norm_parameters(model)
    block = torch.empty(BLOCK_NUMBERS).normal_(std=STANDARD_DEVIATION, generator=torch.Generator().manual_seed(seed))
    blocks: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}
    place = 0
    for parameter in model.parameters():
        if parameter in fixed:
            parameter.fill_(fixed[parameter])
            continue
        kind = parameter.device, parameter.dtype
        if kind not in blocks:
            blocks[kind] = block.to(*kind)
        place = _lay_tiles(parameter, blocks[kind], place)


def _norm_parameters(model: nn.Module) -> dict[nn.Parameter, float]:
    """Parameters of normalizing layers, and what they start as."""
    start = {"weight": 1.0, "bias": 0.0}
    return {
        parameter: start[name]
        for module in model.modules()
        if NORM in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False)
        if name in start
    }


def _lay_tiles(parameter: torch.Tensor, block: torch.Tensor, place: int) -> int:
    """Fill a parameter from `place` of the block on, again and again; returns the place after the last number."""
    flat = parameter.view(-1)
    start = 0
    while start < len(flat):
        count = min(len(block) - place, len(flat) - start)
        flat[start : start + count] = block[place : place + count]
        start, place = start + count, (place + count) % len(block)
    return place
