"""Every moment up to the first token belongs to exactly one stage; others' load is told from our own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from flashsloth.benchmark import timing
from flashsloth.benchmark.timing import (
    ENCODER,
    LANGUAGE,
    OTHER,
    PREPARE,
    PROJECTOR,
    STAGES,
    CpuContention,
    Patience,
    StageClock,
    WallTime,
    is_disturbed,
    machine_seconds,
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


STAT = """cpu  1000 20 300 9000 50 3 7 70 400 10
cpu0 500 10 150 4500 25 1 3 35 200 5
intr 12345
"""


def clock(*times: float) -> Iterator[float]:
    return iter(times)


def share(wall: float, machine: float, own: float, cores: int = 2) -> float:
    """What a watch says after clocks have moved by so much."""
    watch = CpuContention(
        cores, clock(10.0, 10.0 + wall).__next__, clock(500.0, 500.0 + machine).__next__, clock(7.0, 7.0 + own).__next__
    )
    return watch.others_share(watch.read())


def test_our_own_time_is_no_disturbance() -> None:
    assert share(wall=4.0, machine=8.0, own=8.0) == 0.0


def test_others_time_is_a_share_of_all_cores() -> None:
    tolerated = timing.TOLERATED_SECONDS
    assert share(wall=4.0, machine=8.0, own=6.0) == pytest.approx((2.0 - tolerated) / 8.0)
    assert share(wall=4.0, machine=8.0, own=6.0, cores=4) == pytest.approx((2.0 - tolerated) / 16.0)


def test_a_tick_more_or_less_is_no_disturbance() -> None:
    assert share(wall=0.1, machine=0.12, own=0.1) == 0.0
    assert share(wall=0.1, machine=0.1, own=0.12) == 0.0


def test_no_time_at_all_is_no_disturbance() -> None:
    assert share(wall=0.0, machine=1.0, own=0.0) == 0.0


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="this system has no /proc")
def test_everything_counts_but_idling_and_guests_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stat").write_text(STAT, encoding="ascii")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    ticks_per_second = os.sysconf("SC_CLK_TCK")
    assert machine_seconds() == pytest.approx((1000 + 20 + 300 + 3 + 7 + 70) / ticks_per_second)


def test_a_system_that_tells_less_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(user=10.0, nice=0.2, system=3.0, idle=90.0))
    assert machine_seconds() == pytest.approx(13.2)


def test_the_real_clocks_move_with_our_work() -> None:
    watch = CpuContention()
    start = watch.read()
    while watch.read().own - start.own < 0.05:
        sum(range(1000))
    end = watch.read()
    assert end.own > start.own
    assert end.machine >= start.machine
    assert 0.0 <= watch.others_share(start) <= 1.0


def test_a_disturbed_measurement_is_repeated_until_patience_ends() -> None:
    patience = Patience(discards=2)
    assert not patience.discards(0.0)
    assert patience.discards(0.5)
    assert patience.discards(0.5)
    assert not patience.discards(0.5)
    assert patience.discarded == 2


def test_where_disturbance_begins() -> None:
    assert not is_disturbed(timing.DISTURBED_SHARE)
    assert is_disturbed(timing.DISTURBED_SHARE + 0.001)
