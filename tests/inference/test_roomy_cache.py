"""The roomy cache holds what transformers' own holds, whatever is done to it, and moves its buffer seldom."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from flashsloth.inference.kv_cache import bytes_of
from flashsloth.inference.roomy_cache import ROOM_STEP, RoomyLayer, hold_rows, roomy_cache, states_of

HEADS, WIDTH = 2, 4


def columns(count: int, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, HEADS, count, WIDTH)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


OPERATIONS: list[tuple[str, Any]] = [
    ("update", 5), ("update", 1), ("crop", -2), ("update", 3), ("select", [1, 0, 1]), ("update", 1),
    ("crop", -1), ("update", 2), ("repeat", 2), ("update", ROOM_STEP + 7), ("select", [0]), ("update", 1),
]  # fmt: skip


def test_it_holds_what_a_plain_layer_holds() -> None:
    roomy, plain = RoomyLayer(), DynamicLayer()
    batch = 2
    for number, (name, argument) in enumerate(OPERATIONS):
        for layer in (roomy, plain):
            if name == "update":
                keys, values = layer.update(*columns(argument, batch, seed=number))
                assert keys is layer.keys
                assert values is layer.values
            elif name == "crop":
                layer.crop(argument)
            elif name == "select":
                layer.batch_select_indices(torch.tensor(argument))
            else:
                layer.batch_repeat_interleave(argument)
        batch = plain.keys.shape[0]
        assert roomy.get_seq_length() == plain.get_seq_length()
        assert roomy.get_mask_sizes(1) == plain.get_mask_sizes(1)
        assert torch.equal(roomy.keys, plain.keys), (number, name)
        assert torch.equal(roomy.values, plain.values), (number, name)


def test_a_step_writes_into_the_buffer_it_has() -> None:
    layer = RoomyLayer()
    layer.update(*columns(5))
    places = set()
    for seed in range(ROOM_STEP):
        layer.update(*columns(1, seed=seed))
        places.add(layer.keys.data_ptr())
    assert len(places) == 1
    layer.update(*columns(1))
    assert layer.keys.data_ptr() not in places


def test_what_is_held_for_others_is_never_written_to() -> None:
    cache = roomy_cache(tiny.make_config(tiny.make_tokenizer()).text_config)
    assert cache is not None
    kept = [columns(4, batch=1, seed=layer) for layer in range(len(cache.layers))]
    before = [(keys.clone(), values.clone()) for keys, values in kept]
    hold_rows(cache, [kept])
    assert cache.get_seq_length() == 4
    cache.crop(-2)
    cache.update(*columns(3, batch=1), 0)
    assert all(torch.equal(a, b) for old, new in zip(before, kept, strict=True) for a, b in zip(old, new, strict=True))
    taken = states_of(cache, 0, 0, 2)
    cache.crop(-5)
    cache.update(*columns(4, batch=1, seed=9), 0)
    assert torch.equal(taken[0][0], before[0][0][:, :, :2])
    assert bytes_of(taken) == len(cache.layers) * 2 * HEADS * 2 * WIDTH * 4


def test_rows_of_unequal_lengths_stand_at_the_right() -> None:
    cache = roomy_cache(tiny.make_config(tiny.make_tokenizer()).text_config)
    assert cache is not None
    rows = [[columns(count, batch=1, seed=count)] * len(cache.layers) for count in (2, 5)]
    hold_rows(cache, rows)
    keys = cache.layers[1].keys
    assert keys.shape == (2, HEADS, 5, WIDTH)
    assert torch.equal(keys[0, :, 3:], rows[0][1][0][0])
    assert torch.equal(keys[1], rows[1][1][0][0])
    assert not keys[0, :, :3].any()


@pytest.mark.parametrize("text", [{"model_type": "mistral", "sliding_window": 16}])
def test_other_kinds_of_state_are_left_to_transformers(text: dict[str, Any]) -> None:
    config = tiny.make_config(tiny.make_tokenizer(), text_config={**tiny.TEXT, **text, "head_dim": 12})
    assert roomy_cache(config.text_config) is None
    assert DynamicCache(config=config.text_config).layers
