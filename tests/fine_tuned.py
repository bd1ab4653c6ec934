"""A tiny base on disk, and an adapter that has learned something over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
from transformers import PreTrainedTokenizerFast

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.training.lora import add_adapter, find_base
from flashsloth.training.recipe_fields import AdapterSettings

TRAINS = ("projector", "sap", "query_tokens", "embq", "language_model")
CHATS = [
    [tiny.user("What?", tiny.picture()), tiny.assistant("a red dog")],
    [tiny.user("Why?"), tiny.assistant("it is")],
]


def save_base(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Write a tiny random model and its processor."""

    def prepare(model: FlashSlothForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.to(dtype)

    return tiny.save(folder, prepare, **changes)


def load_base(folder: Path) -> FlashSlothForConditionalGeneration:
    """As a run starts from it."""
    return FlashSlothForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def adapted(base: Path, trains: tuple[str, ...] = TRAINS, half: bool = False, **settings: Any) -> Any:
    """PEFT's model around a base, untrained."""
    torch.manual_seed(1)
    chosen = AdapterSettings(**{"rank": 2, "dropout": 0.0, **settings})
    return add_adapter(load_base(base), trains, chosen, find_base(str(base), chosen.quantize, trains), half)


def batch(processor: Any) -> dict[str, torch.Tensor]:
    """A question about a picture and one about none, with their answers."""
    return tiny.encode(processor, CHATS, return_labels=True, padding_side="right")


def learn(model: Any, processor: Any, steps: int = 5, rate: float = 1e-2) -> list[float]:
    """Some steps on one batch; the losses on the way."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    model.train()
    for _ in range(steps):
        loss = model(**batch(processor)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def save_fine_tuned(folder: Path, base: Path, processor: Any, **settings: Any) -> Path:
    """Learn a little and write the adapter, as a stage leaves it."""
    model = adapted(base, **settings)
    learn(model, processor)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
