"""Twins of some tiny models; `twins.py` says what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from talkative import save_talkative
from twins import LLAMA, SMALL, MakeTwins, Twins

import flashsloth
from flashsloth.inference.accelerator import AcceleratorSettings, accelerate


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models: Phi, Llama, and Phi with pictures of several views; talkative, and calm ones for their logits."""
    folder = tmp_path_factory.mktemp("twins")
    changes: dict[str, dict[str, Any]] = {"phi": {}, "llama": {"text_config": dict(LLAMA)}, "hd": {"image_grid": 2}}
    saved = {}
    for name, change in changes.items():
        saved[name] = save_talkative(folder / name, **change)
        saved[f"calm {name}"] = save_calm(folder / f"calm-{name}", **change)
    return saved


def save_calm(folder: Path, **changes: Any) -> Path:
    """As `save_talkative`, with weights as `tiny.py` draws them."""
    tokenizer = tiny.make_tokenizer()
    config = tiny.make_config(tokenizer, **changes)
    tiny.make_model(config, attention="sdpa").save_pretrained(folder)
    tiny.make_processor(tokenizer, config).save_pretrained(folder)
    return folder


@pytest.fixture
def make_twins(checkpoints: dict[str, Path]) -> MakeTwins:
    def make(name: str = "phi", **settings: Any) -> Twins:
        plain = flashsloth.load(checkpoints[name], device="cpu", optimize=False)
        fast = flashsloth.load(checkpoints[name], device="cpu", optimize=False)
        assert accelerate(fast.generator, fast.image_encoder, AcceleratorSettings(**{**SMALL, **settings})) is not None
        return Twins(plain, fast)

    return make


@pytest.fixture
def twins(make_twins: MakeTwins) -> Twins:
    return make_twins()
