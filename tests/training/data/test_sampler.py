"""Steps and micro-batches: the same samples whatever the devices, alike in kind and length where asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler

from flashsloth.training.data import Joined, StepBatchSampler
from flashsloth.training.data.sample import Sizes
from flashsloth.training.data.sampler import estimated_lengths


class Shape:
    """Data of which only the sizes count."""

    blocks = None

    def __init__(self, count: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.made = Sizes(random.integers(10, 4000, count), random.choice([0, 1], count, p=[0.3, 0.7]))

    def __len__(self) -> int:
        return len(self.made.pictures)

    def sizes(self) -> Sizes:
        return self.made


def sampler(count: int = 203, **changes: Any) -> StepBatchSampler:
    options = {"seed": 3, "batch_size": 16, "micro_batch_size": 4, **changes}
    return StepBatchSampler(Joined([Shape(count)]), **options)


def shares(made: StepBatchSampler) -> list[list[list[int]]]:
    """What accelerate deals to each process."""
    return [list(BatchSamplerShard(made, made.processes, rank)) for rank in range(made.processes)]


@pytest.mark.parametrize("group", [None, 81])
def test_a_step_has_the_same_samples_on_any_number_of_processes(group: int | None) -> None:
    steps = []
    for processes, micro in ((1, 16), (1, 4), (2, 8), (2, 2), (4, 4)):
        made = sampler(processes=processes, micro_batch_size=micro, group_tokens=group)
        made.set_epoch(2)
        dealt = shares(made)
        assert len({len(share) for share in dealt}) == 1
        assert len(dealt[0]) == len(made) // processes == made.steps * (16 // micro // processes)
        assert all(len(batch) == micro for share in dealt for batch in share)
        a_step = 16 // micro // processes
        steps.append(
            [
                sorted(n for share in dealt for batch in share[step * a_step : (step + 1) * a_step] for n in batch)
                for step in range(made.steps)
            ]
        )
    assert all(found == steps[0] for found in steps[1:])


@pytest.mark.parametrize("group", [None, 81])
def test_an_epoch_takes_everything_and_fills_the_last_step(group: int | None) -> None:
    made = sampler(group_tokens=group)
    assert made.steps == 13
    taken = [number for batch in made for number in batch]
    assert len(taken) == 13 * 16
    assert set(taken) == set(range(203))
    made.set_epoch(1)
    assert [number for batch in made for number in batch] != taken


def test_fewer_samples_than_a_step_are_repeated() -> None:
    taken = [number for batch in sampler(5, shuffle=False) for number in batch]
    assert sorted(taken) == sorted((list(range(5)) * 4)[:16])


def test_a_resumed_epoch_goes_on_where_it_was() -> None:
    whole, resumed = sampler(processes=2), sampler(processes=2)
    for made in (whole, resumed):
        made.set_epoch(4)
    for rank in range(2):
        everything = list(BatchSamplerShard(whole, 2, rank))
        assert list(SkipBatchSampler(BatchSamplerShard(resumed, 2, rank), 7)) == everything[7:]


def test_unshuffled_steps_are_in_order() -> None:
    assert [number for batch in sampler(32, shuffle=False) for number in batch] == list(range(32))


def test_grouped_steps_are_alike() -> None:
    data = Joined([Shape(4000)])
    sizes = data.sizes()
    lengths = estimated_lengths(sizes, 81)
    spread = {}
    for group in (None, 81):
        steps = StepBatchSampler(data, 3, 16, 4, group_tokens=group).epoch_steps(0)
        kinds = [set(sizes.pictures[step].tolist()) for step in steps]
        spread[group] = float(np.mean([np.ptp(lengths[step]) for step in steps]))
        if group is not None:
            assert sum(len(kind) > 1 for kind in kinds) <= 2  # the epoch's last
            of_kind = [kind for kind in kinds[:40] if kind == {0}]
            assert 4 < len(of_kind) < 20  # kinds are mixed over the epoch
            firsts = [int(lengths[step[0]]) for step in steps[:40]]
            assert firsts != sorted(firsts)
            assert firsts != sorted(firsts, reverse=True)
    assert spread[81] < spread[None] / 4


def test_a_step_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 16 is not a multiple of micro_batch_size 4 times 3 processes"):
        sampler(processes=3)
