"""Amounts for people: three digits and a prefix.

In: a number and its unit. Out: a text such as "642 GFLOP", "7.38 GB" or "1.44 s".
"""

from __future__ import annotations

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
"""Size and SI prefix, the largest first."""
DIGITS = 3
WHOLE = {"B", "FLOP"}
"""Units that come in whole pieces: no thousandths of them."""


def readable(amount: float, unit: str) -> str:
    """`amount` of `unit` with three digits and the prefix that suits it; 0 has none."""
    if amount == 0:
        return f"0 {unit}"
    smallest = 1.0 if unit in WHOLE else PREFIXES[-1][0]
    fitting = (entry for entry in PREFIXES if abs(amount) >= entry[0] and entry[0] >= smallest)
    size, prefix = next(fitting, next(entry for entry in PREFIXES if entry[0] == smallest))
    if unit == "s" and size > 1:  # nobody says kiloseconds
        size, prefix = 1.0, ""
    value = amount / size
    whole_digits = len(f"{abs(value):.0f}")
    return f"{value:,.{max(0, DIGITS - whole_digits)}f} {prefix}{unit}"


__all__ = ["readable"]
