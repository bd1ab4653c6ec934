"""That a merged model computes what its base and its adapter did together.

In: a model and its processor, at two moments. Out: the logits of one small batch with pictures, and how far two of them
are apart. The batch is drawn from a fixed seed: a question about a picture, one about two, and one about none.

Legend: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

SEED = 0
QUESTIONS = (("What is in the picture?", 1), ("Which of the two is larger?", 2), ("What can you do?", 0))
"""A question, and how many pictures it is about."""
PICTURE_SIZE = (96, 64)


@dataclass(frozen=True)
class Difference:
    """How far two sets of logits are apart.

    Attributes:
        largest: the largest absolute difference.
        scale: the largest absolute logit of the expected ones.
        same_choice: share of positions with the same likeliest token.
    """

    largest: float
    scale: float
    same_choice: float

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest logit."""
        return self.largest / self.scale if self.scale else self.largest


def proof_batch(processor: Any) -> dict[str, torch.Tensor]:
    """The batch, as the processor writes it."""
    noise = np.random.default_rng(SEED)
    width, height = PICTURE_SIZE
    chats = []
    for question, count in QUESTIONS:
        pictures = [Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(count)]
        content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": question}]
        chats.append([{"role": "user", "content": content}])
    encoded = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, return_tensors="pt", padding_side="right", add_generation_prompt=True
    )
    return dict(encoded)


@torch.no_grad()
def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """float32 [n, V], at the n positions of the batch that are no padding."""
    device = next(model.parameters()).device
    logits = model.eval()(**{name: values.to(device) for name, values in batch.items()}).logits  # [B, T, V]
    return logits.float().cpu()[batch["attention_mask"].bool()]


def compare(found: torch.Tensor, expected: torch.Tensor) -> Difference:
    """How far `found` is from `expected`, float32 [n, V] both; what is not a number is infinitely far."""
    apart = (found - expected).abs().max().item()
    return Difference(
        largest=apart if np.isfinite(apart) else float("inf"),
        scale=expected.abs().max().item(),
        same_choice=(found.argmax(-1) == expected.argmax(-1)).double().mean().item(),
    )


__all__ = ["Difference", "compare", "logits_of", "proof_batch"]
