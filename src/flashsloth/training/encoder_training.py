"""Teaching an encoder patch by patch what the drawn world knows is there, alone or beside the answers; and its options.

In: pictures and, for every patch, which shape, colour and character it shows and whether a centre lies in it. Out: a
loss that trains the encoder, and each patch's predictions. The counterpart, for a model that starts from nothing, of
the pretrained encoder that FlashSloth starts from; the heads are thrown away afterwards.

While a stage trains, its encoder may be compiled, and its pictures varied on the device, as pixel values in -1..1, each
by itself: brighter or darker, with more or less contrast, noisier, moved by a pixel's breadth or two. So pictures that
were drawn once (see `world/pack.py`) are not the same twice. While the model answers or is evaluated, nothing is
varied.

Legend: B or N pictures, P patches, V vision width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import ModelOutput

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration, FlashSlothModel

BACKGROUND_WEIGHT = 0.3
"""Most patches show nothing; they count less."""
PATCHES_KEY = "patches"
"""What a batch calls the classes of its patches, where the answers' loss has the patches' beside it."""
BRIGHTNESS, CONTRAST = 0.08, 0.12
"""At most so much is added to pixel values, or multiplied on."""
NOISE = 0.05
"""The largest standard deviation of a picture's noise."""
SHIFT_PIXELS = 1.5
"""At most, to each side: patch labels stay true."""
LOWEST, HIGHEST = -1.0, 1.0


class PatchHeads(nn.Module):
    """One linear head a property, on the features of an encoder."""

    def __init__(self, width: int) -> None:
        from flashsloth.world import CHARACTER_CLASSES, COLOR_CLASSES, SHAPE_CLASSES

        super().__init__()
        classes = {
            "shape": len(SHAPE_CLASSES),
            "color": len(COLOR_CLASSES),
            "character": len(CHARACTER_CLASSES),
            "center": 2,
        }
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in classes.items()})

    def forward(self, features: torch.Tensor, targets: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss [] and the predictions int64 [B, P, properties].

        Args:
            features: float [B, P, V].
            targets: for each property int64 [B, P], the class of each patch.
        """
        features = self.norm(features)
        losses, predictions = [], []
        for name, head in self.heads.items():
            logits = head(features).float()  # [B, P, C]
            weight = torch.full((logits.shape[-1],), 1.0, device=logits.device)
            weight[0] = BACKGROUND_WEIGHT
            losses.append(F.cross_entropy(logits.flatten(0, 1), targets[name].flatten(), weight=weight))
            predictions.append(logits.argmax(dim=-1))
        return torch.stack(losses).sum(), torch.stack(predictions, dim=-1)


class PatchClassifier(nn.Module):
    """The encoder alone, with the heads."""

    def __init__(self, model: FlashSlothModel) -> None:
        super().__init__()
        self.vision_tower = model.vision_tower
        self.num_patches = model.config.num_patches
        self.patch_heads = PatchHeads(model.config.vision_config.hidden_size)

    def forward(
        self,
        pixel_values: torch.Tensor,
        shape: torch.Tensor,
        color: torch.Tensor,
        character: torch.Tensor,
        center: torch.Tensor,
    ) -> ModelOutput:
        """Loss, and predictions int64 [B, P, properties].

        Args:
            pixel_values: float [B, 1, 3, size, size].
            shape, color, character, center: int64 [B, P], the class of each patch.
        """
        targets = {"shape": shape, "color": color, "character": character, "center": center}
        output = self.vision_tower(pixel_values=pixel_values.flatten(0, 1), return_dict=True)
        loss, predictions = self.patch_heads(output.last_hidden_state[:, -self.num_patches :], targets)
        return ModelOutput(loss=loss, logits=predictions)


@contextmanager
def patch_loss(model: FlashSlothForConditionalGeneration, weight: float) -> Iterator[None]:
    """While this is open, batches with :data:`PATCHES_KEY` add the patches' loss, `weight` times, to the answers'.

    The heads are a part of `model` meanwhile, so that optimizer, checkpoints and data-parallel wrappers see them, and
    are gone afterwards. The encoder's features are used as they are: nothing is computed twice.
    """
    waiting: list[dict[str, torch.Tensor]] = []

    def take(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kwargs = dict(kwargs)
        targets = kwargs.pop(PATCHES_KEY, None)
        waiting[:] = [] if targets is None else [targets]
        return args, kwargs

    def add(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        for targets in waiting:
            loss, _ = module.patch_heads(output.image_outputs.last_hidden_state, targets)
            output.loss = output.loss + weight * loss
        return output

    heads = PatchHeads(model.config.vision_config.hidden_size)
    model.patch_heads = heads.to(device=model.device, dtype=model.dtype)
    hooks = [
        model.register_forward_pre_hook(take, with_kwargs=True),
        model.register_forward_hook(add, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        del model.patch_heads


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
