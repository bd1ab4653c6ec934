"""InternVL2-2B: tiles of 448 pixels and a thumbnail, each 256 visual tokens (pixel shuffle).

In: a picture. Out: its tiles, by the processor of transformers' InternVL. Its shape through transformers' InternVL: the
published vision encoder (InternViT-300M) as it is; its language model, InternLM2-1.8B, as a Llama, which has the same
matrices (InternLM2 keeps queries, keys and values in one). Sizes: OpenGVLab/InternVL2-2B.

At most six tiles, as in the usual evaluations: a picture of 640x480 becomes 3x2 of them and the thumbnail, 1792 visual
tokens. With the processor's own limit of twelve it would be 4x3 and the thumbnail, 3328.

Legend: N tiles, S their side.
"""

from __future__ import annotations

from typing import Any

from PIL import Image
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from flashsloth.benchmark.models.baseline import Baseline, Prepared

VISION = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "attention_bias": True,
    "image_size": 448,
    "patch_size": 14,
}
TEXT = {
    "model_type": "llama",
    "vocab_size": 92_553,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32_768,
}
IMAGE_ID = 92_546
TOKENS_A_TILE = 256
MOST_TILES = 6


class InternVL2(Baseline):
    """InternVL2-2B."""

    model_class = InternVLForConditionalGeneration

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        height, width = self.config.vision_config.image_size
        self._processor = GotOcr2ImageProcessorPil(
            size={"height": height, "width": width},
            crop_to_patches=True,
            max_patches=MOST_TILES,
            image_mean=IMAGENET_DEFAULT_MEAN,
            image_std=IMAGENET_DEFAULT_STD,
        )

    @staticmethod
    def true_config() -> InternVLConfig:
        return InternVLConfig(
            vision_config=dict(VISION),
            text_config=dict(TEXT),
            image_token_id=IMAGE_ID,
            image_seq_length=TOKENS_A_TILE,
            tie_word_embeddings=False,
        )

    @property
    def marker_ids(self) -> tuple[int, ...]:
        return self.image_id - 2, self.image_id - 1  # start and end, which stand before it in the vocabulary

    def prepare(self, picture: Image.Image) -> Prepared:
        """`pixel_values` float [N, 3, S, S]."""
        return {"pixel_values": self._processor(images=[picture], return_tensors="pt")["pixel_values"]}

    def visual_tokens(self, prepared: Prepared) -> int:
        return len(prepared["pixel_values"]) * self.config.image_seq_length
