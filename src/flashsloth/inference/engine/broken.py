"""An answer whose logits were not finite: run once more, alone and without a cache, to see where it begins.

In: a model, and the sequence as far as it came. Out: the error that names the layer.
"""

from __future__ import annotations

from typing import Any

import torch

from flashsloth.inference.engine.model_runner import picture_inputs
from flashsloth.inference.engine.scheduler import Sequence
from flashsloth.inference.prompt import FIELDS
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.non_finite import NonFiniteError, explained


def broken_answer(model: FlashSlothForConditionalGeneration, sequence: Sequence) -> NonFiniteError:
    """The error of an answer that could not be made."""
    tokens, prompt, device = sequence.sampling.tokens, sequence.request.prompt, model.device
    inputs: dict[str, Any] = {
        name: torch.tensor(
            [getattr(prompt, name) + (tokens if name == "input_ids" else [0] * len(tokens))], device=device
        )
        for name in FIELDS
    }
    inputs |= picture_inputs([sequence], device)
    return explained(model, lambda: model(**inputs, use_cache=False, logits_to_keep=1))


__all__ = ["broken_answer"]
