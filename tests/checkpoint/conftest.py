"""One tiny base in float16 with an adapter, for every test here that only reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fine_tuned import save_base, save_fine_tuned

from flashsloth.model.processing_flashsloth import FlashSlothProcessor


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "base", torch.float16)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Path, tiny_processor: FlashSlothProcessor) -> Path:
    return save_fine_tuned(tmp_path_factory.mktemp("adapter") / "adapter", base, tiny_processor, rank=3)
