"""LFM2-VL-1.6B: SigLIP2 at the picture's own shape (up to 1024 patches), whose 2x2 patches become one visual token.

In: a picture. Out: patches, their mask and their grid. Transformers' processor for it needs torchvision, which this
project does without; so the picture is prepared here with Pillow, to the shapes and the number of visual tokens that
that processor gives: 640x480 becomes 576x416, which is 36x26 patches and 234 visual tokens.
Sizes: LiquidAI/LFM2-VL-1.6B.

Legend: P patches, C numbers of a patch, M patches there is room for.
"""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import nn
from transformers import Lfm2VlConfig, Lfm2VlForConditionalGeneration
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from flashsloth.benchmark.models.baseline import Baseline, Prepared, normalized
from flashsloth.errors import BenchmarkError

VISION = {
    "model_type": "siglip2_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "patch_size": 16,
    "num_patches": 256,
    "vision_use_head": False,
}
ATTENTION_LAYERS = (2, 5, 8, 10, 12, 14)
LAYERS = 16
TEXT = {
    "model_type": "lfm2",
    "vocab_size": 65_536,
    "hidden_size": 2048,
    "intermediate_size": 12_288,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "layer_types": ["full_attention" if layer in ATTENTION_LAYERS else "conv" for layer in range(LAYERS)],
}
IMAGE_ID = 396
MARKER_IDS = (498, 499)
MOST_TOKENS = 256
TOLERANCE = 2.0
"""A picture is cut into tiles only if it has this many times the pixels of `MOST_TOKENS` visual tokens."""


class Lfm2Vl(Baseline):
    """LFM2-VL-1.6B."""

    model_class = Lfm2VlForConditionalGeneration

    @staticmethod
    def true_config() -> Lfm2VlConfig:
        return Lfm2VlConfig(vision_config=dict(VISION), text_config=dict(TEXT), image_token_id=IMAGE_ID)

    @property
    def marker_ids(self) -> tuple[int, ...]:
        return MARKER_IDS

    def prepare(self, picture: Image.Image) -> Prepared:
        """`pixel_values` float [1, M, C], their mask int64 [1, M], `spatial_shapes` int64 [1, 2]: rows and columns."""
        side, factor = self.config.vision_config.patch_size, self.config.downsample_factor
        width, height = fitting_size(picture.width, picture.height, side * factor)
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        pixels = normalized(resized, IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD)  # [height, width, 3]
        rows, columns = height // side, width // side
        patches = pixels.view(rows, side, columns, side, 3).transpose(1, 2).reshape(rows * columns, -1)  # [P, C]
        room = MOST_TOKENS * factor**2 - len(patches)
        mask = torch.ones(len(patches), dtype=torch.long)
        return {
            "pixel_values": nn.functional.pad(patches, (0, 0, 0, room))[None],
            "pixel_attention_mask": nn.functional.pad(mask, (0, room))[None],
            "spatial_shapes": torch.tensor([[rows, columns]]),
        }

    def visual_tokens(self, prepared: Prepared) -> int:
        return int(prepared["pixel_attention_mask"].sum()) // self.config.downsample_factor**2


def fitting_size(width: int, height: int, unit: int) -> tuple[int, int]:
    """The size a picture is given: multiples of `unit`, at most `MOST_TOKENS` of its squares.

    Raises:
        BenchmarkError: for a picture that would be cut into tiles.
    """
    if width * height > MOST_TOKENS * unit**2 * TOLERANCE:
        raise BenchmarkError(f"a picture of {width}x{height} would be cut into tiles; expected a smaller one")
    fitted = [max(unit, round(side / unit) * unit) for side in (width, height)]
    if fitted[0] * fitted[1] > MOST_TOKENS * unit**2:
        shrink = math.sqrt(width * height / (MOST_TOKENS * unit**2))
        fitted = [max(unit, math.floor(side / shrink / unit) * unit) for side in (width, height)]
    return fitted[0], fitted[1]
