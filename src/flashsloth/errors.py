"""The root of all errors of this package, and those that several of its folders raise.

Each message is one line: what was found, what was expected, what to do. An error that stands for one noun is defined
beside it. What a user can mend is a ValueError too, so that callers who know only Python's own errors catch it.
"""

from __future__ import annotations

from typing import Any


class FlashSlothError(Exception):
    """Whatever this package raises by itself."""


class LoadError(FlashSlothError, ValueError):
    """No FlashSloth could be loaded from what was named."""


class PromptError(FlashSlothError, ValueError):
    """A question, its options or its length do not work with this model."""


class EngineError(FlashSlothError, RuntimeError):
    """The engine cannot answer any more, or not in this process."""


class AnswerError(FlashSlothError, ValueError):
    """Some answers of a batch could not be made.

    Attributes:
        answers: those that were made, in their places, None where one failed; empty where each was handed out before.
        errors: place -> what went wrong there.
    """

    def __init__(self, message: str, answers: list[Any], errors: dict[int, Exception]) -> None:
        super().__init__(message)
        self.answers, self.errors = answers, errors


class BenchmarkError(FlashSlothError, ValueError):
    """Something was asked for that cannot be measured, or a file holds no results."""


class SpeedError(FlashSlothError, ValueError):
    """A faster path was asked for something that it cannot do."""
