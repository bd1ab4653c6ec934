"""A tiny FlashSloth in a folder, and loaded from it through the one door."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

import flashsloth
from flashsloth.inference import FlashSloth


NEVER = 1000.0
"""Taken from the scores of special tokens."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with its processor."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = tiny.make_tokenizer()
    config = tiny.make_config(tokenizer)
    model = tiny.make_model(config, attention="sdpa")
    with torch.no_grad():  # so that answers have text
        model.lm_head.bias[tokenizer.all_special_ids] -= NEVER
    model.save_pretrained(folder)
    tiny.make_processor(tokenizer, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sloth(checkpoint: Path) -> FlashSloth:
    return flashsloth.load(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    return [tiny.picture(seed) for seed in range(3)]
