"""Others' load is told from our own, and disturbed measurements are repeated, but not for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flashsloth.benchmark import timing
from flashsloth.benchmark.timing import CpuContention, Patience, busy_seconds, is_disturbed

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


def test_proc_stat_counts_everything_but_idling_and_guests_twice() -> None:
    assert busy_seconds(STAT, ticks_per_second=100) == pytest.approx((1000 + 20 + 300 + 3 + 7 + 70) / 100)


def test_an_old_kernels_shorter_line_is_read_too() -> None:
    assert busy_seconds("cpu  1000 20 300 9000\n", ticks_per_second=100) == pytest.approx(13.2)


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
