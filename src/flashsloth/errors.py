"""What a user can get wrong at the door. Each message is one line: what was found, what was expected, what to do.

What a user can get wrong when measuring. Each message is one line: what was found, what was expected, what to do.

What goes wrong with faster weights.
"""

from __future__ import annotations

from typing import Any


class FlashSlothError(ValueError):
    """A mistake that the one who made the call can mend."""


class LoadError(FlashSlothError):
    """No FlashSloth could be loaded from what was named."""


class PromptError(FlashSlothError):
    """A question, its options or its length do not work with this model."""


class EngineError(RuntimeError):
    """The engine cannot answer any more, or not in this process."""


class AnswerError(FlashSlothError):
    """Some answers of a batch could not be made.

    Attributes:
        answers: those that were made, in their places, None where one failed; empty where each was handed out before.
        errors: place -> what went wrong there.
    """

    def __init__(self, message: str, answers: list[Any], errors: dict[int, Exception]) -> None:
        super().__init__(message)
        self.answers, self.errors = answers, errors


class BenchmarkError(ValueError):
    """Something was asked for that cannot be measured, or a file holds no results."""


class SpeedError(ValueError):
    """A faster path was asked for something that it cannot do."""
