"""Fixtures of a tiny FlashSloth for every test that needs one; `tiny.py` says how it is made.

A plugin of its own: the process that hands tests out to others has no use for models, and is quick without them.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import TinyModelMaker
from transformers import PreTrainedTokenizerFast

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return tiny.make_tokenizer()


@pytest.fixture(scope="session")
def tiny_processor(tiny_tokenizer: PreTrainedTokenizerFast) -> FlashSlothProcessor:
    return tiny.make_processor(tiny_tokenizer, tiny.make_config(tiny_tokenizer))


@pytest.fixture
def make_tiny_model(tiny_tokenizer: PreTrainedTokenizerFast) -> TinyModelMaker:
    """A maker of tiny models: configuration fields as keywords, and `attention`."""

    def make(attention: str = "eager", **changes: Any) -> FlashSlothForConditionalGeneration:
        return tiny.make_model(tiny.make_config(tiny_tokenizer, **changes), attention=attention)

    return make


@pytest.fixture
def tiny_config(tiny_tokenizer: PreTrainedTokenizerFast) -> FlashSlothConfig:
    return tiny.make_config(tiny_tokenizer)


@pytest.fixture
def tiny_model(make_tiny_model: TinyModelMaker) -> FlashSlothForConditionalGeneration:
    return make_tiny_model()
