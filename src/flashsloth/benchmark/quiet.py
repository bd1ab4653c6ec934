"""Whether a measurement had the machine to itself.

In: the processor time that everything on this machine used while something was measured, and what the measured process
used of it. Out: the share of the machine that others took; and whether a measurement is thrown away and repeated.

Time that a hypervisor gave to other machines ("steal") counts as others' too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DISTURBED_SHARE = 0.03
"""A measurement is disturbed if others took more of the machine's processor time than this."""
TOLERATED_SECONDS = 0.03
"""Others' seconds that do not count: both clocks tick in hundredths, and are not read at the same moment."""
PROC_STAT = Path("/proc/stat")
BUSY_FIELDS = ("user", "nice", "system", "irq", "softirq", "steal")
FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The first columns of /proc/stat, in its order; guests' time, which follows, is part of user's."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Reading:
    """All clocks at one moment, in seconds: on the wall, of everything on this machine, and of this process."""

    wall: float
    machine: float
    own: float


class LoadWatch:
    """Tells what share of the machine others took.

    Args:
        cores: processor cores of this machine.
        wall, machine, own: the clocks of :class:`Reading`.
    """

    def __init__(
        self,
        cores: int | None = None,
        wall: Clock = time.perf_counter,
        machine: Clock | None = None,
        own: Clock | None = None,
    ) -> None:
        self._cores = (os.cpu_count() or 1) if cores is None else cores
        self._wall = wall
        self._machine = machine_seconds if machine is None else machine
        self._own = own_seconds if own is None else own

    def read(self) -> Reading:
        """The clocks now."""
        return Reading(self._wall(), self._machine(), self._own())

    def others_share(self, since: Reading) -> float:
        """What others took of the machine's processor time since a reading: 0 to 1."""
        now = self.read()
        wall = now.wall - since.wall
        others = (now.machine - since.machine) - (now.own - since.own) - TOLERATED_SECONDS
        return min(1.0, max(0.0, others) / (self._cores * wall)) if wall > 0 else 0.0


class Patience:
    """How many disturbed measurements may still be thrown away; those after that are kept, and marked."""

    def __init__(self, discards: int) -> None:
        self._left = discards
        self.discarded = 0

    def discards(self, share: float) -> bool:
        """Whether a measurement during which others took `share` is to be thrown away, and repeated."""
        if not is_disturbed(share) or self._left == 0:
            return False
        self._left -= 1
        self.discarded += 1
        return True


def is_disturbed(share: float) -> bool:
    """Whether others took too much for a measurement to count as undisturbed."""
    return share > DISTURBED_SHARE


def machine_seconds() -> float:
    """Processor seconds that everything on this machine has used since it was started."""
    if PROC_STAT.is_file():
        return busy_seconds(PROC_STAT.read_text(encoding="ascii"), os.sysconf("SC_CLK_TCK"))
    import psutil

    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in BUSY_FIELDS)


def busy_seconds(proc_stat: str, ticks_per_second: int) -> float:
    """The same from the text of /proc/stat, whose first line adds up all processors."""
    ticks = dict(zip(FIELDS, map(int, proc_stat.splitlines()[0].split()[1:]), strict=False))
    return sum(ticks.get(name, 0) for name in BUSY_FIELDS) / ticks_per_second


def own_seconds() -> float:
    """Processor seconds of this process, all its threads, and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
