"""From samples to batches: the processor writes the conversations down, labels and all.

In: a list of samples. Out: the tensors that the model's forward takes, padded on the right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from flashsloth.model.chat_template import PLAIN_TEMPLATE
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.data import Sample
from flashsloth.training.stages import Stage


class ConversationCollator:
    """Batches of conversations, with and without pictures, of one turn or many. Loss stands on the answers alone."""

    def __init__(self, processor: FlashSlothProcessor, stage: Stage) -> None:
        self.processor = processor
        self.max_length = stage.max_length
        self.template = PLAIN_TEMPLATE if stage.template == "plain" else None
        self.space_before_queries = stage.template == "published_chat"

    def __call__(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        batch = self.processor.apply_chat_template(
            [sample.messages for sample in samples],
            chat_template=self.template,
            tokenize=True,
            return_dict=True,
            return_labels=True,
            return_tensors="pt",
            padding=True,
            padding_side="right",
            max_length=self.max_length,
            space_before_queries=self.space_before_queries,
        )
        return dict(batch)


class PatchCollator:
    """Batches of pictures with what each of their patches shows: int64 [B, P] beside `pixel_values`."""

    def __init__(self, processor: FlashSlothProcessor) -> None:
        self.image_processor = processor.image_processor

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = self.image_processor(images=[sample["image"] for sample in samples], return_tensors="pt")
        labels = {
            name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
            for name in samples[0]
            if name != "image"
        }
        return {"pixel_values": pixels["pixel_values"], **labels}


__all__ = ["ConversationCollator", "PatchCollator"]
