"""What a row of the table of serving's figures came to: figures beside their limits, and what must not have been.

In: numbers. Out: :class:`RowResult`, which says whether the row held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One that was measured.

    Attributes:
        name: what it is.
        value: in `unit`.
        unit: "" for a count.
        most, least: its limits; None where it has none.
    """

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within its limits."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    @property
    def limit(self) -> str:
        """In words."""
        if self.most is not None:
            return f"at most {_short(self.most)} {self.unit}".strip()
        return "" if self.least is None else f"at least {_short(self.least)} {self.unit}".strip()

    @property
    def shown(self) -> str:
        """Value and unit."""
        return f"{_short(self.value)} {self.unit}".strip()


@dataclass
class RowResult:
    """What a row came to.

    Attributes:
        name: of the row, as "L1".
        figures: that were measured.
        wrong: what must not have been, a line each.
        seconds: it took.
    """

    name: str
    figures: list[Figure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether all figures are within their limits and nothing was wrong."""
        return not self.wrong and all(one.holds for one in self.figures)

    @property
    def missed(self) -> list[str]:
        """Why it does not hold."""
        beyond = [f"{one.name}: {one.shown}; expected {one.limit}" for one in self.figures if not one.holds]
        return [*self.wrong, *beyond]

    def add(
        self, name: str, value: float, unit: str = "", *, most: float | None = None, least: float | None = None
    ) -> None:
        """Note a figure."""
        self.figures.append(Figure(name, float(value), unit, most, least))


def read_result(found: dict[str, Any]) -> RowResult:
    """A result that was kept as JSON."""
    return RowResult(
        found["name"], [Figure(**one) for one in found["figures"]], list(found["wrong"]), float(found["seconds"])
    )


def _short(value: float) -> str:
    """Three digits that count, and all before the point."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
