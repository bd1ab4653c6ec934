"""From samples to batches: the processor writes the conversations down, labels and all.

In: a list of samples. Out: the tensors that the model's forward takes, padded on the right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from flashsloth.model.chat_template import PLAIN_TEMPLATE
from flashsloth.model.conversation import Message, pictures_of
from flashsloth.model.processing_flashsloth import IGNORED_LABEL, FlashSlothProcessor
from flashsloth.training.data import Sample
from flashsloth.training.packing import PADDING_SEGMENT, pack_rows, pad_packed
from flashsloth.training.patch_classifier import PATCHES_KEY
from flashsloth.training.stages import Stage


def one_by_one(messages: list[Message]) -> list[list[Message]]:
    """A conversation's turns as conversations of their own, each with the pictures of the first message in front."""
    first = messages[0]["content"]
    pictures = [] if isinstance(first, str) else [part for part in first if part["type"] == "image"]
    alone = []
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        content = question["content"]
        words = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [part for part in words if part["type"] == "text"]
        alone.append([{"role": "user", "content": [*pictures, *texts]}, answer])
    return alone


class ConversationCollator:
    """Batches of conversations, with and without pictures, of one turn or many. Loss stands on the answers alone.

    A sample whose turns are independent is packed (see `packing.py`); all others are padded as they are.
    """

    def __init__(self, processor: FlashSlothProcessor, stage: Stage, attention: str = "sdpa") -> None:
        self.processor = processor
        self.attention = attention
        self.max_length = stage.max_length
        self.template = PLAIN_TEMPLATE if stage.template == "plain" else None
        self.space_before_queries = stage.template == "published_chat"

    def __call__(self, samples: list[Sample]) -> dict[str, Any]:
        batch = self._answers(samples)
        patches = [sample.patches for sample in samples if sample.patches is not None]
        if patches:
            batch[PATCHES_KEY] = _stacked(patches)
        return batch

    def _answers(self, samples: list[Sample]) -> dict[str, Any]:
        if not any(sample.independent for sample in samples):
            return dict(self._encode([sample.messages for sample in samples], padding=True, return_tensors="pt"))
        rows: list[dict[str, list[int]]] = []
        pictures: list[Any] = []
        for sample in samples:
            alone = one_by_one(sample.messages) if sample.independent else [sample.messages]
            encoded = self._encode(alone, padding=False, return_pixel_values=False)
            del encoded["attention_mask"]
            by_question = zip(*encoded.values(), strict=True)
            rows.append(pack_rows([dict(zip(encoded, row, strict=True)) for row in by_question]))
            pictures += pictures_of(sample.messages)
        fillers = {
            "input_ids": self.processor.tokenizer.pad_token_id,
            "labels": IGNORED_LABEL,
            "segment": PADDING_SEGMENT,
        }
        batch = pad_packed(rows, fillers, self.attention)
        if pictures:
            batch["pixel_values"] = self.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        return batch

    def _encode(self, conversations: list[Any], **options: Any) -> Any:
        return self.processor.apply_chat_template(
            conversations,
            chat_template=self.template,
            tokenize=True,
            return_dict=True,
            return_labels=True,
            padding_side="right",
            max_length=self.max_length,
            space_before_queries=self.space_before_queries,
            **options,
        )


class PatchCollator:
    """Batches of pictures with what each of their patches shows: int64 [B, P] beside `pixel_values`."""

    def __init__(self, processor: FlashSlothProcessor) -> None:
        self.image_processor = processor.image_processor

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = self.image_processor(images=[sample["image"] for sample in samples], return_tensors="pt")
        labels = [{name: values for name, values in sample.items() if name != "image"} for sample in samples]
        return {"pixel_values": pixels["pixel_values"], **_stacked(labels)}


def _stacked(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """int64 [P] a property of each sample as int64 [B, P] a property."""
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


__all__ = ["ConversationCollator", "PatchCollator"]
