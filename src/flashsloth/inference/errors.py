"""What a user can get wrong at the door. Each message is one line: what was found, what was expected, what to do."""

from __future__ import annotations


class FlashSlothError(ValueError):
    """A mistake that the one who made the call can mend."""


class LoadError(FlashSlothError):
    """No FlashSloth could be loaded from what was named."""


class PromptError(FlashSlothError):
    """A question, its options or its length do not work with this model."""
