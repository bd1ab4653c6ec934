"""The order of an epoch: everything once, each epoch anew, weights, blocks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from flashsloth.training.data import sampler
from flashsloth.training.data.sampler import SourceShape, epoch_order


def test_an_epoch_takes_everything_once_in_an_order_of_its_own() -> None:
    shapes = [SourceShape(50), SourceShape(30)]
    first, again, second = (epoch_order(shapes, 7, epoch).tolist() for epoch in (0, 0, 1))
    assert first == again
    assert sorted(first) == sorted(second) == list(range(80))
    assert first != second != list(range(80))
    assert epoch_order(shapes, 8, 0).tolist() != first


def test_sources_are_mixed_all_over() -> None:
    taken = epoch_order([SourceShape(2000), SourceShape(1000)], 1, 0)
    for part in np.array_split(taken < 2000, 6):
        assert 0.55 < part.mean() < 0.78


def test_unshuffled_is_source_after_source() -> None:
    shapes = [SourceShape(3), SourceShape(2, weight=2.0)]
    assert epoch_order(shapes, 1, 0, shuffle=False).tolist() == [0, 1, 2, 3, 4, 3, 4]


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 1.5, 3.0])
def test_weights_say_how_often_an_epoch_takes_a_sample(weight: float) -> None:
    shapes = [SourceShape(40, weight), SourceShape(10)]
    for shuffle in (True, False):
        seen: Counter[int] = Counter()
        for epoch in range(4):
            taken = epoch_order(shapes, 3, epoch, shuffle)
            assert (taken < 40).sum() == round(40 * weight)
            assert (taken >= 40).sum() == 10
            seen.update(taken[taken < 40].tolist())
        # 4 epochs of any of these weights are a whole number of passes
        assert set(seen.values()) == {int(4 * weight)}
        assert len(seen) == 40


def test_a_small_weight_takes_at_least_one() -> None:
    assert len(epoch_order([SourceShape(10, 0.001)], 1, 0)) == 1


def test_blocks_are_read_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "WINDOW_SAMPLES", 20)
    blocks = np.array([10] * 8)
    taken = epoch_order([SourceShape(80, blocks=blocks)], 5, 0)
    assert sorted(taken.tolist()) == list(range(80))
    for window in taken.reshape(4, 20):
        assert len(set((window // 10).tolist())) == 2
        assert window.tolist() != sorted(window.tolist())
    other = epoch_order([SourceShape(80, blocks=blocks)], 5, 1)
    assert [set((w // 10).tolist()) for w in taken.reshape(4, 20)] != [
        set((w // 10).tolist()) for w in other.reshape(4, 20)
    ]


def test_mixing_keeps_the_order_of_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "WINDOW_SAMPLES", 20)
    shapes = [SourceShape(80, blocks=np.array([10] * 8)), SourceShape(40)]
    taken = epoch_order(shapes, 5, 0)
    assert taken[taken < 80].tolist() == epoch_order(shapes[:1], 5, 0).tolist()
