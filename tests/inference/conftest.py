"""A tiny FlashSloth in a folder, and loaded from it through the one door."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from PIL import Image
from talkative import save_talkative

import flashsloth
from flashsloth.inference.pipeline import FlashSloth


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with its processor."""
    return save_talkative(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def sloth(checkpoint: Path) -> FlashSloth:
    return flashsloth.load(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    return [tiny.picture(seed) for seed in range(3)]
