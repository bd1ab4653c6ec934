"""Tiny models for engines that replay graphs, on the device that is there."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
from graph_engines import DEVICE, LoadCalm

import flashsloth
from flashsloth.inference.pipeline import FlashSloth

LLAMA = {
    **{name: size for name, size in tiny.TEXT.items() if name != "model_type"},
    "model_type": "llama",
    "num_key_value_heads": 2,
    "attention_bias": True,
}
CHANGES: dict[str, dict[str, Any]] = {"phi": {}, "llama": {"text_config": LLAMA}, "hd": {"image_grid": 2}}


@pytest.fixture(scope="session")
def load_calm(tmp_path_factory: pytest.TempPathFactory) -> LoadCalm:
    """Phi, Llama, and Phi with pictures of several views, with weights whose logits do not magnify rounding."""

    @cache
    def folder(name: str) -> Path:
        return tiny.save(tmp_path_factory.mktemp(name), **CHANGES[name])

    @cache
    def load(name: str, dtype: str = "float32") -> FlashSloth:
        return flashsloth.load(folder(name), device=DEVICE, dtype=dtype, optimize=False)

    return load


@pytest.fixture
def phi(load_calm: LoadCalm) -> FlashSloth:
    return load_calm("phi")
