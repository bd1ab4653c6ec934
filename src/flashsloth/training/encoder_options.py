"""What a stage may do to its encoder while it trains: compile it, and vary its pictures on the device.

In: an encoder, and what a recipe asks for. Out: the same encoder, as it was, once the stage is over. Pictures are
varied as pixel values in -1..1, each by itself: brighter or darker, with more or less contrast, noisier, moved by a
pixel's breadth or two. So pictures that were drawn once (see `world/pack.py`) are not the same twice. While the model
answers or is evaluated, nothing is varied.

Legend: N pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

BRIGHTNESS, CONTRAST = 0.08, 0.12
"""At most so much is added to pixel values, or multiplied on."""
NOISE = 0.05
"""The largest standard deviation of a picture's noise."""
SHIFT_PIXELS = 1.5
"""At most, to each side: patch labels stay true."""
LOWEST, HIGHEST = -1.0, 1.0


def varied(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures as they might also have looked: float [N, 3, size, size] of the same, drawn by torch's generator."""
    count, side = len(pixels), pixels.shape[-1]

    def drawn(most: float, *shape: int) -> torch.Tensor:
        """Between -most and most for each picture: float32 [N, ...]."""
        return torch.empty(count, *shape, device=pixels.device).uniform_(-most, most)

    still = torch.eye(2, 3, device=pixels.device).expand(count, -1, -1).clone()  # [N, 2, 3]
    still[:, :, 2] = drawn(2 * SHIFT_PIXELS / side, 2)  # affine_grid's picture is two units wide
    places = F.affine_grid(still, list(pixels.shape), align_corners=False)  # [N, size, size, 2]
    moved = F.grid_sample(pixels.float(), places, padding_mode="border", align_corners=False)
    noise = torch.randn_like(moved) * drawn(NOISE, 1, 1, 1).abs()
    changed = moved * (1 + drawn(CONTRAST, 1, 1, 1)) + drawn(BRIGHTNESS, 1, 1, 1) + noise
    return changed.clamp(LOWEST, HIGHEST).to(pixels.dtype)


@contextmanager
def encoder_options(encoder: nn.Module, *, augment: bool, compiled: bool) -> Iterator[None]:
    """While this is open, the encoder's pictures are varied in training, and its passes compiled.

    Args:
        encoder: takes `pixel_values`, as all of transformers' do.
        augment: vary pictures.
        compiled: compile the encoder, whose shapes never change; its parameters keep their names.
    """

    def vary(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if module.training:
            kwargs = {**kwargs, "pixel_values": varied(kwargs["pixel_values"])}
        return args, kwargs

    handle = encoder.register_forward_pre_hook(vary, with_kwargs=True) if augment else None
    if compiled:
        encoder.compile(dynamic=False)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
        if compiled:
            encoder._compiled_call_impl = None


__all__ = ["encoder_options", "varied"]
