"""The block that never moves: what stands in its rows stays, however they are arranged."""

from __future__ import annotations

import pytest
import torch

from flashsloth.inference.kv_cache import StaticKVCache

SHAPES = [((2, 3), (1, 5)), ((2, 3), (2, 4))]
"""Heads and widths of keys and values, of two layers."""


def make(positions: int, rows: int = 8, columns: int = 1000) -> StaticKVCache:
    return StaticKVCache(SHAPES, torch.float32, torch.device("cpu"), positions, rows, columns)


def fill(cache: StaticKVCache, row: int, columns: int) -> None:
    for number, held in enumerate((*cache.keys, *cache.values)):
        held[row, :, :columns] = torch.arange(columns)[:, None] + 1000.0 * row + 10000.0 * number


def test_with_room_for_all_it_is_arranged_once() -> None:
    cache = make(10**6)
    cache.arrange(1, 10, 0)
    assert (cache.rows, cache.columns, cache.positions) == (8, 1024, 8 * 1024)


def test_rows_become_longer_and_shorter_and_keep_what_they_hold() -> None:
    cache = make(8 * 128)
    cache.arrange(2, 100, 0)
    assert (cache.rows, cache.columns) == (8, 128)
    places = [memory.data_ptr() for side in cache.memory for memory in side]
    fill(cache, 0, 100)
    fill(cache, 1, 70)
    before = [cache.states(0, 100), cache.states(1, 70)]
    cache.arrange(3, 200, 2)
    assert (cache.rows, cache.columns) == (4, 256)
    cache.arrange(2, 500, 2)
    assert (cache.rows, cache.columns) == (2, 512)
    cache.arrange(8, 100, 2)
    assert (cache.rows, cache.columns) == (8, 128)
    for row, states in enumerate(before):
        stop = states[0][0].shape[2]
        for kept, now in zip(states, cache.states(row, stop), strict=True):
            torch.testing.assert_close(now, kept)
    assert [memory.data_ptr() for side in cache.memory for memory in side] == places


def test_where_the_usual_lengths_do_not_fit_rows_have_what_there_is() -> None:
    cache = make(300)
    cache.arrange(2, 140, 0)
    assert (cache.rows, cache.columns) == (2, 150)
    cache.arrange(1, 300, 0)
    assert (cache.rows, cache.columns) == (1, 300)


def test_more_than_there_is_memory_for_is_our_own_fault() -> None:
    with pytest.raises(AssertionError, match="admits no more"):
        make(100).arrange(2, 60, 0)
