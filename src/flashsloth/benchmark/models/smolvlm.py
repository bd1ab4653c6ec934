"""SmolVLM-2.2B: tiles of 384 pixels and the whole, each 81 visual tokens (pixel shuffle of 3x3).

In: a picture. Out: its tiles, by transformers' own processor, which enlarges it until its longer side is 1536: a
picture of 640x480 becomes 4x3 tiles and the whole, 1053 visual tokens. Sizes: HuggingFaceTB/SmolVLM-Instruct.

Legend: N tiles, S their side.
"""

from __future__ import annotations

from typing import Any

from PIL import Image
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from flashsloth.benchmark.models.baseline import Baseline, Prepared

VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
TEXT = {
    "model_type": "llama",
    "vocab_size": 49_155,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 16_384,
    "pad_token_id": None,
}
IMAGE_ID = 49_153
SHUFFLE = 3
"""Patches along either side that become one visual token."""
TILES_ALONG_LONGER_SIDE = 4


class SmolVlm(Baseline):
    """SmolVLM-2.2B."""

    model_class = SmolVLMForConditionalGeneration
    part_names = ("vision_model", "connector", "text_model")

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        vision = self.config.vision_config
        self._tokens_a_tile = (vision.image_size // vision.patch_size // self.config.scale_factor) ** 2
        self._processor = SmolVLMImageProcessorPil(
            size={"longest_edge": TILES_ALONG_LONGER_SIDE * vision.image_size},
            max_image_size={"longest_edge": vision.image_size},
        )

    @staticmethod
    def true_config() -> SmolVLMConfig:
        return SmolVLMConfig(
            vision_config=dict(VISION),
            text_config=dict(TEXT),
            scale_factor=SHUFFLE,
            image_token_id=IMAGE_ID,
            tie_word_embeddings=False,
        )

    @property
    def marker_ids(self) -> tuple[int, ...]:
        return self.image_id - 1, self.image_id - 2  # what surrounds an image; any other marker (which tile, new line)

    def prepare(self, picture: Image.Image) -> Prepared:
        """`pixel_values` float [1, N, 3, S, S] and their mask int64 [1, N, S, S]."""
        encoded = self._processor(images=[[picture]], return_tensors="pt")
        return {
            "pixel_values": encoded["pixel_values"],
            "pixel_attention_mask": encoded["pixel_attention_mask"],
        }

    def picture_ids(self, prepared: Prepared) -> list[int]:
        """Each tile after two markers, a new line after each row, the whole between its own markers."""
        around, other = self.marker_ids
        tiles = prepared["pixel_values"].shape[1] - 1
        rows = tiles // TILES_ALONG_LONGER_SIDE
        visual = [self.image_id] * self._tokens_a_tile
        return [*([around, other, *visual] * tiles), *([other] * rows), around, other, *visual, around]
