"""What `compare_speed.py` found of one workload, and whether the new tree holds its gates.

In: measurements of both trees, pair by pair, as `speed_worker.py` makes them. Out: ratios, a table, numbers for JSON.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from speed_worker import WORKLOADS

from flashsloth.planning.machine import readable

LEAST_SPEED, MOST_MEMORY = 0.95, 1.05
"""Of the old tree's: the gates."""
OLD, NEW = "old", "new"
LOAD = "load"
TITLES = {LOAD: "loading", **{name: workload.title for name, workload in WORKLOADS.items()}}
"""What is measured, by its name on the command line."""
WALL, PROCESSOR = "wall", "processor"
CLOCKS = {WALL: "seconds", PROCESSOR: "processor_seconds"}
"""What speed is told by, and what a measurement calls it."""


@dataclass
class Comparison:
    """One workload: what was measured of each tree, pair by pair; see `speed_worker.py` for a measurement.

    Attributes:
        name: a key of `TITLES`.
        clock: a key of `CLOCKS`, the one whose ratio has to hold the gate.
        old, new: measurements.
        others_share: what other programs took of the machine meanwhile.
        discarded: pairs that were repeated.
    """

    name: str
    clock: str = WALL
    old: list[dict[str, Any]] = field(default_factory=list)
    new: list[dict[str, Any]] = field(default_factory=list)
    others_share: list[float] = field(default_factory=list)
    discarded: int = 0

    def add(self, pair: dict[str, dict[str, Any]], others_share: float) -> None:
        """Keep a pair."""
        self.old.append(pair[OLD])
        self.new.append(pair[NEW])
        self.others_share.append(others_share)

    def speeds(self, clock: str) -> list[float]:
        """How fast the new tree was in each pair, as a share of the old one's speed."""
        key = CLOCKS[clock]
        return [old[key] / new[key] for old, new in zip(self.old, self.new, strict=True)]

    def memory(self, kind: str) -> float | None:
        """The new tree's peak as a share of the old one's, the median; None where it cannot be told."""
        peaks = [(old[kind], new[kind]) for old, new in zip(self.old, self.new, strict=True)]
        return statistics.median(new / old for old, new in peaks) if all(map(all, peaks)) else None

    @property
    def misses(self) -> list[str]:
        """The gates that the new tree misses."""
        found = ["speed"] if statistics.median(self.speeds(self.clock)) < LEAST_SPEED else []
        for kind, name in (("peak_bytes", "memory"), ("device_peak_bytes", "device memory")):
            share = self.memory(kind)
            found += [name] if share is not None and share > MOST_MEMORY else []
        return found

    def summary(self) -> dict[str, Any]:
        """For the JSON file: what the table shows, and all that was measured."""
        return {
            "name": self.name,
            "title": TITLES[self.name],
            "speed": {clock: statistics.median(self.speeds(clock)) for clock in CLOCKS},
            "speed_range": {clock: [min(self.speeds(clock)), max(self.speeds(clock))] for clock in CLOCKS},
            "memory": self.memory("peak_bytes"),
            "device_memory": self.memory("device_peak_bytes"),
            "same_answers": [one["answers"] for one in self.old] == [one["answers"] for one in self.new],
            "misses": self.misses,
            "others_share": self.others_share,
            "discarded": self.discarded,
            "old": self.old,
            "new": self.new,
        }


def table(comparisons: Sequence[Comparison]) -> str:
    """What was found, a line a workload."""
    rows: list[tuple[str, ...]] = [
        ("", "old", "new", "speed", "pairs", "by processor time", "memory", "answers", "others", "gate")
    ]
    rows += [_row(comparison) for comparison in comparisons]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(comparison: Comparison) -> tuple[str, ...]:
    found = comparison.summary()
    shares = [found[kind] for kind in ("memory", "device_memory") if found[kind] is not None]
    return (
        found["title"],
        _amount(comparison.old),
        _amount(comparison.new),
        f"{found['speed'][WALL]:.1%}",
        _range(found["speed_range"][WALL]),
        f"{found['speed'][PROCESSOR]:.1%} ({_range(found['speed_range'][PROCESSOR])})",
        " ".join(f"{share:.1%}" for share in shares) or "-",
        "-" if comparison.name == LOAD else "same" if found["same_answers"] else "differ",
        f"{max(comparison.others_share):.0%}",
        "missed: " + ", ".join(found["misses"]) if found["misses"] else "held",
    )


def _range(shares: Sequence[float]) -> str:
    lowest, highest = shares
    return f"{lowest:.0%}-{highest:.0%}"


def _amount(measured: list[dict[str, Any]]) -> str:
    """The median time, and tokens a second where there are several."""
    seconds, tokens = statistics.median(one["seconds"] for one in measured), measured[0]["tokens"]
    return readable(seconds, "s") + (f" {float(f'{tokens / seconds:.3g}'):,g}/s" if tokens > 1 else "")
