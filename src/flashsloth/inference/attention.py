"""Where the model looked in each picture that it was asked about: arrays, and where they lie in the picture.

In: the weights of a pass (`model/attention_maps.py`), the pictures' sizes, and the processor that made their views.
Out: an :class:`Attention` a picture.

Legend: W views a picture, g x g patches a view, r x r windows (visual tokens) a view of k x k patches, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flashsloth.model.attention_maps import AttentionWeights
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil


@dataclass(frozen=True, eq=False)
class Attention:
    """Where the model looked in one picture.

    Attributes:
        size: (width, height) of the picture, as it was opened: upright.
        boxes: float64 [W, 4], what the patches of each view cover: left, top, right, bottom in pixels of the picture.
            Beyond the picture lies the grey on which it was laid.
        sap: float32 [W, r, r, k, k], what each visual token takes of the patches of its window; these sum to one.
        queries: float32 [Q, W, g, g], what each query takes of each patch; a query sums to one over all pictures.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    sap: np.ndarray
    queries: np.ndarray

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Where the picture lies in the first view: left, top, right, bottom, 0 to 1 along the sides of its patches.

        More than 1 where the view's last pixels are too few for a patch.
        """
        left, top, right, bottom = map(float, self.boxes[0])
        across, down = right - left, bottom - top
        return (0 - left) / across, (0 - top) / down, (self.size[0] - left) / across, (self.size[1] - top) / down

    @property
    def share(self) -> float:
        """How much of the queries' attention this picture has: 1 where it is the only one."""
        return float(self.queries.sum(axis=(1, 2, 3)).mean())

    @property
    def saliency(self) -> np.ndarray:
        """SAP's weights patch by patch, float32 [W, g, g]."""
        views, rows, _, side, _ = self.sap.shape
        return self.sap.swapaxes(2, 3).reshape(views, rows * side, rows * side)


def attention_of(
    weights: AttentionWeights | None,
    sizes: Sequence[tuple[int, int]],
    config: FlashSlothConfig,
    image_processor: FlashSlothImageProcessorPil,
) -> tuple[Attention, ...]:
    """Where a turn looked, a picture at a time, in their order.

    Args:
        weights: of the turn; None where it saw no picture.
        sizes: (width, height) of the pictures that the turn saw, as they were opened.
        config: the model's.
        image_processor: what made their views.

    Raises:
        ValueError: if there are more or fewer sizes than pictures.
    """
    seen = 0 if weights is None else len(weights.sap)
    if seen != len(sizes):
        raise ValueError(f"attention is of {seen} pictures, but {len(sizes)} sizes were given: give one a picture seen")
    if weights is None:
        return ()
    covered = config.patch_grid * config.vision_config.patch_size / config.vision_config.image_size
    return tuple(
        Attention(size, _patch_boxes(image_processor.view_boxes(size)[: len(sap)], covered), sap, queries)
        for size, sap, queries in zip(sizes, weights.sap, weights.queries, strict=True)
    )


def _patch_boxes(views: np.ndarray, covered: float) -> np.ndarray:
    """The upper left part of each view, float64 [W, 4], that is made of whole patches: 378 of 384 pixels in SigLIP."""
    corner, span = views[:, :2], views[:, 2:] - views[:, :2]
    return np.concatenate([corner, corner + covered * span], axis=1)


__all__ = ["Attention", "attention_of"]
