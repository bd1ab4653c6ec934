"""Keys and values by either of transformers' names, whichever version is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import encode, user
from torch import nn
from transformers import Cache, DynamicCache

from flashsloth.model.generation import CACHE_NAME, CACHE_NAMES, cache_argument
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor


class Renamed(nn.Module):
    """A language model that calls keys and values something else."""

    def forward(self, inputs_embeds: torch.Tensor, memory: Cache | None = None) -> None: ...


class Forgetful(nn.Module):
    """A language model without keys and values."""

    def forward(self, inputs_embeds: torch.Tensor, labels: torch.Tensor | None = None) -> None: ...


@pytest.fixture
def inputs(tiny_processor: FlashSlothProcessor) -> dict[str, torch.Tensor]:
    return encode(tiny_processor, [user("Where is it?")])


def cut(inputs: dict[str, torch.Tensor], start: int, stop: int | None) -> dict[str, torch.Tensor]:
    return {name: values if name == "attention_mask" else values[:, start:stop] for name, values in inputs.items()}


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_either_name_is_taken_by_forward(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor], name: str
) -> None:
    whole = tiny_model(**inputs).logits
    first = cut(inputs, 0, -2)
    first["attention_mask"] = first["attention_mask"][:, :-2]
    began = tiny_model(**first, use_cache=True)
    assert isinstance(began[CACHE_NAME], DynamicCache)
    assert began.past_key_values is began[CACHE_NAME]
    rest: dict[str, Any] = {**cut(inputs, -2, None), name: began[CACHE_NAME]}
    assert torch.allclose(tiny_model(**rest).logits, whole[:, -2:], atol=1e-5)


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_either_name_is_taken_by_generate(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor], name: str
) -> None:
    expected = tiny_model.generate(**inputs, max_new_tokens=4)
    cache = DynamicCache(config=tiny_model.config.text_config)
    assert torch.equal(tiny_model.generate(**inputs, max_new_tokens=4, **{name: cache}), expected)
    assert cache.get_seq_length() == expected.shape[1] - 1


def test_both_names_at_once_are_refused(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(ValueError, match="not both"):
        tiny_model(**inputs, cache=DynamicCache(), past_key_values=DynamicCache())


def test_an_unknown_name_is_found_by_its_type() -> None:
    assert cache_argument(Renamed()) == "memory"
    with pytest.raises(ValueError, match="Forgetful takes no keys and values"):
        cache_argument(Forgetful())
