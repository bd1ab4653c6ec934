"""FlashSloth: small vision-language models that answer at once.

Importing registers FlashSloth with transformers' Auto classes, and does nothing else: the names below are imported
when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flashsloth.model.registration import register
from flashsloth.version import __version__

if TYPE_CHECKING:
    from flashsloth.checkpoint.convert import convert
    from flashsloth.checkpoint.create import create
    from flashsloth.checkpoint.inspect import inspect_checkpoint
    from flashsloth.errors import AnswerError, EngineError, FlashSlothError, LoadError, PromptError
    from flashsloth.inference.answer import Answer
    from flashsloth.inference.engine.config import EngineConfig
    from flashsloth.inference.load import load
    from flashsloth.inference.pipeline import FlashSloth
    from flashsloth.inference.request import FinishReason
    from flashsloth.inference.sampling_params import SamplingParams
    from flashsloth.model.configuration_flashsloth import FlashSlothConfig
    from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
    from flashsloth.model.loading import CheckpointError
    from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration, FlashSlothModel
    from flashsloth.model.processing_flashsloth import FlashSlothProcessor
    from flashsloth.model.prompt_layout import layout_from_ids, prompt_ids

_HOMES = {
    "Answer": "flashsloth.inference.answer",
    "AnswerError": "flashsloth.errors",
    "CheckpointError": "flashsloth.model.loading",
    "EngineConfig": "flashsloth.inference.engine.config",
    "EngineError": "flashsloth.errors",
    "FinishReason": "flashsloth.inference.request",
    "FlashSloth": "flashsloth.inference.pipeline",
    "FlashSlothConfig": "flashsloth.model.configuration_flashsloth",
    "FlashSlothError": "flashsloth.errors",
    "FlashSlothForConditionalGeneration": "flashsloth.model.modeling_flashsloth",
    "FlashSlothImageProcessorPil": "flashsloth.model.image_processing_flashsloth",
    "FlashSlothModel": "flashsloth.model.modeling_flashsloth",
    "FlashSlothProcessor": "flashsloth.model.processing_flashsloth",
    "LoadError": "flashsloth.errors",
    "PromptError": "flashsloth.errors",
    "SamplingParams": "flashsloth.inference.sampling_params",
    "convert": "flashsloth.checkpoint.convert",
    "inspect_checkpoint": "flashsloth.checkpoint.inspect",
    "create": "flashsloth.checkpoint.create",
    "layout_from_ids": "flashsloth.model.prompt_layout",
    "load": "flashsloth.inference.load",
    "prompt_ids": "flashsloth.model.prompt_layout",
}
"""Public name -> the module it lives in."""

register()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flashsloth' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = [
    "Answer",
    "AnswerError",
    "CheckpointError",
    "EngineConfig",
    "EngineError",
    "FinishReason",
    "FlashSloth",
    "FlashSlothConfig",
    "FlashSlothError",
    "FlashSlothForConditionalGeneration",
    "FlashSlothImageProcessorPil",
    "FlashSlothModel",
    "FlashSlothProcessor",
    "LoadError",
    "PromptError",
    "SamplingParams",
    "__version__",
    "convert",
    "create",
    "inspect_checkpoint",
    "layout_from_ids",
    "load",
    "prompt_ids",
]
