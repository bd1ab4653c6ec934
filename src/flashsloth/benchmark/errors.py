"""What a user can get wrong when measuring. Each message is one line: what was found, what was expected, what to do."""

from __future__ import annotations


class BenchmarkError(ValueError):
    """Something was asked for that cannot be measured, or a file holds no results."""
