"""Others' load is told from our own, and disturbed measurements are repeated, but not for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flashsloth.benchmark import timing
from flashsloth.benchmark.timing import CpuContention, Patience, is_disturbed, machine_seconds

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
