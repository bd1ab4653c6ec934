"""Qwen2-VL-2B: a ViT at the picture's own resolution, whose 2x2 patches become one visual token each.

In: a picture. Out: patches and their grid, by transformers' own processor; 391 visual tokens for 640x480 (644x476, in
units of 28x28). Sizes: Qwen/Qwen2-VL-2B-Instruct.

Legend: P patches, C numbers of a patch, B batch, T positions.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from flashsloth.benchmark.models.baseline import Baseline, Prepared

VISION = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
TEXT = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
IDS = {
    "image_token_id": 151_655,
    "video_token_id": 151_656,
    "vision_start_token_id": 151_652,
    "vision_end_token_id": 151_653,
}
IMAGE_TYPE = 1
"""What marks visual tokens among the types of tokens."""


class Qwen2Vl(Baseline):
    """Qwen2-VL-2B."""

    model_class = Qwen2VLForConditionalGeneration
    part_names = ("visual", "visual.merger", "language_model")

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        vision = self.config.vision_config
        self._merge = vision.spatial_merge_size
        self._processor = Qwen2VLImageProcessorPil(patch_size=vision.patch_size, merge_size=self._merge)

    @staticmethod
    def true_config() -> Qwen2VLConfig:
        return Qwen2VLConfig(vision_config=dict(VISION), text_config=dict(TEXT), tie_word_embeddings=True, **IDS)

    @property
    def marker_ids(self) -> tuple[int, ...]:
        config = self.config
        return config.vision_start_token_id, config.vision_end_token_id, config.video_token_id

    def prepare(self, picture: Image.Image) -> Prepared:
        """`pixel_values` float [P, C] and `image_grid_thw` int64 [1, 3]."""
        return dict(self._processor(images=[picture], return_tensors="pt"))

    def visual_tokens(self, prepared: Prepared) -> int:
        return int(prepared["image_grid_thw"].prod()) // self._merge**2

    def more_inputs(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mm_token_type_ids": (input_ids == self.image_id).int() * IMAGE_TYPE}
