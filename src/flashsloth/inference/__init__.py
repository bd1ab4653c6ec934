"""The one door: `load()` and what it returns. Command line, server, evaluation and benchmark all enter here."""

from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.chat import Conversation
from flashsloth.inference.errors import FlashSlothError, LoadError, PromptError
from flashsloth.inference.load import load
from flashsloth.inference.options import AnswerOptions

__all__ = [
    "AnswerOptions",
    "Conversation",
    "FlashSloth",
    "FlashSlothError",
    "LoadError",
    "PromptError",
    "load",
]
