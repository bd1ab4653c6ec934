"""How far a command is, and durations as they are said."""

from __future__ import annotations

import pytest

from flashsloth.cli import progress


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (99, "99 s"), (101, "2 min"), (5900, "98 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert progress.duration(seconds) == said
