"""The one door: `load()` and what it returns. Command line, server, evaluation and benchmark all enter here."""

from flashsloth.errors import AnswerError, EngineError, FlashSlothError, LoadError, PromptError
from flashsloth.inference.answer import Answer
from flashsloth.inference.chat import Conversation
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.load import load
from flashsloth.inference.options import AnswerOptions
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason
from flashsloth.inference.sampling import SamplingParams

__all__ = [
    "Answer",
    "AnswerError",
    "AnswerOptions",
    "Conversation",
    "EngineConfig",
    "EngineError",
    "FinishReason",
    "FlashSloth",
    "FlashSlothError",
    "LoadError",
    "PromptError",
    "SamplingParams",
    "load",
]
