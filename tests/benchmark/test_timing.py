"""Every moment up to the first token belongs to exactly one stage, whatever is nested in what."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from flashsloth.benchmark.timing import (
    ENCODER,
    LANGUAGE,
    OTHER,
    PREPARE,
    PROJECTOR,
    STAGES,
    StageClock,
    WallTime,
    scale_of,
)


class Script:
    """Times told beforehand."""

    def __init__(self, *times: float) -> None:
        self._times: Iterator[float] = iter(times)

    def now(self) -> float:
        return next(self._times)

    def between(self, earlier: float, later: float) -> float:
        return later - earlier

    known = between


class Late(Script):
    """A device whose tokens are known five later than its queue came to them."""

    def known(self, earlier: float, later: float) -> float:
        return later - earlier + 5


class Nested(nn.Module):
    """An encoder with its projector inside."""

    def __init__(self) -> None:
        super().__init__()
        self.projector = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.projector(x)


def test_nested_stages_get_what_is_their_own() -> None:
    encoder, language = Nested(), nn.Linear(2, 2)
    #                 start  encoder  projector  done  done  language  done  token  language  done  token
    clock = StageClock(Script(0, 1, 3, 7, 8, 10, 15, 16, 20, 30, 31))
    parts = {ENCODER: (encoder,), PROJECTOR: (encoder.projector,), LANGUAGE: (language,)}
    with clock.watching(parts):
        encoder(torch.zeros(2))
        language(torch.zeros(2))
        clock.token()
        language(torch.zeros(2))
        clock.token()
    spent = clock.stages()
    assert set(spent) == set(STAGES)
    assert spent[ENCODER] == (3 - 1) + (8 - 7)
    assert spent[PROJECTOR] == 7 - 3
    assert spent[LANGUAGE] == 15 - 10  # the second call comes after the first token
    assert spent[OTHER] == (1 - 0) + (10 - 8) + (16 - 15)
    assert clock.tokens() == [16, 31]
    assert sum(spent.values()) == clock.tokens()[0]


def test_waiting_for_the_device_is_time_that_passed_too() -> None:
    language = nn.Linear(2, 2)
    clock = StageClock(Late(0, 1, 3, 4))
    with clock.watching({LANGUAGE: (language,)}):
        language(torch.zeros(2))
        clock.token()
    spent = clock.stages()
    assert clock.tokens() == [4 + 5]
    assert spent[LANGUAGE] == 3 - 1
    assert spent[OTHER] == (1 - 0) + (4 - 3) + 5


def test_hooks_are_gone_afterwards() -> None:
    module = nn.Linear(2, 2)
    clock = StageClock(WallTime())
    with pytest.raises(RuntimeError), clock.watching({ENCODER: (module,)}), clock.counting_steps(module):
        module(torch.zeros(3))
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_a_stage_by_hand() -> None:
    clock = StageClock(Script(0, 2, 5, 6))
    with clock.stage(PREPARE):
        pass
    clock.token()
    assert clock.stages()[PREPARE] == 3
    assert clock.stages()[OTHER] == 3


def test_steps_of_a_batch_are_calls_of_the_head() -> None:
    head = nn.Linear(2, 2)
    clock = StageClock(Script(0, 4, 9))
    with clock.counting_steps(head):
        head(torch.zeros(8, 2))
        head(torch.zeros(8, 2))
    assert clock.tokens() == [4, 9]


def test_wall_time_moves_on() -> None:
    scale = scale_of(torch.device("cpu"))
    earlier = scale.now()
    assert scale.between(earlier, scale.now()) >= 0
