"""What goes wrong with faster weights."""

from __future__ import annotations


class SpeedError(ValueError):
    """A faster path was asked for something that it cannot do."""
