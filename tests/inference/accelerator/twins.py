"""The same small model twice: answering by the plain path, and by the engine as it runs on a processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tiny

from flashsloth.inference import FlashSloth
from flashsloth.inference.accelerator import Engine

LLAMA = {
    "model_type": "llama",
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "attention_bias": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
SMALL: dict[str, Any] = {
    "backend": None,
    "records": False,
    "slots": (1, 2, 4),
    "reading_rows": (1, 2),
    "looking_pictures": (1, 2),
    "prompt_step": 8,
    "long_prompt": 32,
    "width_step": 16,
    "workers": 2,
    "ahead": 5,
}
"""Shapes so small that a short answer crosses their edges."""


@dataclass
class Twins:
    """One checkpoint, loaded twice."""

    plain: FlashSloth
    fast: FlashSloth

    @property
    def engine(self) -> Engine:
        assert self.fast.generator.engine is not None
        return self.fast.generator.engine

    def end_after(self, *ids: int) -> None:
        """Let these ids end answers."""
        self.plain.generator.end_ids = self.fast.generator.end_ids = list(ids)


MakeTwins = Callable[..., Twins]
