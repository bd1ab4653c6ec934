"""The image encoder on a CUDA device, replayed as a graph for 1, 2, 4 or 8 pictures.

In: views as the processor makes them. Out: features, as the model's `get_image_features` gives them.

Legend: N pictures, W views a picture, P patches and R visual tokens a picture, V and D widths of encoder and language
model.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import torch

from flashsloth.inference.engine.cuda_graph import Recordings, Watchable, bucket
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures

PICTURES = (1, 2, 4, 8)
"""Pictures of one pass are rounded up to one of these."""


class GraphEncoder:
    """In the place of :attr:`flashsloth.inference.vision.ImageEncoder.encode`.

    Args:
        model: whose encoder.
        recordings: of the model's device.

    Attributes:
        watchable: called once a replayed pass.
    """

    def __init__(self, model: FlashSlothForConditionalGeneration, recordings: Recordings) -> None:
        self._model, self._recordings = model, recordings
        self.watchable = Watchable()
        self._pixels: torch.Tensor | None = None  # float32 [8, W, 3, size, size]

    @torch.no_grad()
    def __call__(self, views: torch.Tensor) -> FlashSlothImageFeatures:
        """Features of views float [N, W, 3, size, size], in memory of their own."""
        parts = [self._encode(some) for some in views.split(PICTURES[-1])]
        joined: dict[str, Any] = {
            name: torch.cat([part[name] for part in parts]) if len(parts) > 1 else tensor
            for name, tensor in parts[0].items()
        }
        return FlashSlothImageFeatures(**joined)

    @torch.no_grad()
    def warm_up(self, pictures: int) -> int:
        """Record passes over up to so many pictures; how many are recorded then."""
        if self._pixels is None:
            config = self._model.config
            size = config.vision_config.image_size
            self._pixels = torch.zeros(PICTURES[-1], config.num_views, 3, size, size, device=self._model.device)
        counts = [count for count in PICTURES if count <= bucket(pictures, PICTURES)]
        for count in reversed(counts):
            self._replay(count)
        return sum(self._key(count) in self._recordings for count in counts)

    def _encode(self, views: torch.Tensor) -> FlashSlothImageFeatures:
        """Features of at most 8 pictures: replayed if that is recorded, else plain, as an HD model's whole views."""
        count = bucket(len(views), PICTURES)
        if (
            self._pixels is None
            or views.shape[1:] != self._pixels.shape[1:]
            or self._key(count) not in self._recordings
        ):
            return self._model.get_image_features(_pinned(views, self._model.device).to(self._model.device))
        with self._recordings.lock:
            self._pixels[: len(views)].copy_(_pinned(views, self._model.device), non_blocking=True)
            features, tokens = (tensor[: len(views)].clone() for tensor in self._replay(count))
        return FlashSlothImageFeatures(last_hidden_state=features, pooler_output=tokens)

    def _replay(self, count: int) -> tuple[torch.Tensor, ...]:
        """Features [count, P, V] and visual tokens [count, R, D] of the first pictures of the memory."""
        assert self._pixels is not None
        output: tuple[torch.Tensor, ...] = self.watchable(
            self._recordings.run, self._key(count), partial(self._pass, count), [self._pixels]
        )
        return output

    def _pass(self, count: int) -> tuple[torch.Tensor, ...]:
        assert self._pixels is not None
        seen = self._model.get_image_features(self._pixels[:count])
        return seen.last_hidden_state, seen.pooler_output

    def _key(self, count: int) -> Hashable:
        return "pictures", count


def _pinned(views: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Views from where a CUDA device can fetch them by itself; elsewhere as they are."""
    return views.pin_memory() if device.type == "cuda" and views.device.type == "cpu" else views


__all__ = ["PICTURES", "GraphEncoder"]
