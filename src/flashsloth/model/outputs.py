"""What a FlashSloth's passes return.

Legend: B batch, T positions, N pictures, W views a picture, P patches and R windows a view, V vision width, D
language-model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput


@dataclass
class FlashSlothImageFeatures(ModelOutput):
    """What the encoder side makes of N pictures.

    Attributes:
        last_hidden_state: float [N, W*P, V], F: the uncompressed features, views one after the other.
        pooler_output: float [N, W*R, D], the visual tokens.
    """

    last_hidden_state: torch.Tensor = None  # type: ignore[assignment]  # always given: ModelOutput wants a default
    pooler_output: torch.Tensor = None  # type: ignore[assignment]


@dataclass
class FlashSlothModelOutput(ModelOutput):
    """`last_hidden_state` float [B, T, D] and what the language model was asked to return beside it."""

    last_hidden_state: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: FlashSlothImageFeatures | None = None


@dataclass
class FlashSlothCausalLMOutput(ModelOutput):
    """`loss` [], `logits` float [B, T or fewer, vocabulary] and what the language model returned beside them.

    Where the loss was made without logits in evaluation, `predicted` int64 [B, T] has the most likely token after each
    position whose next token is supervised, and 0 elsewhere.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    predicted: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: FlashSlothImageFeatures | None = None


__all__ = ["FlashSlothCausalLMOutput", "FlashSlothImageFeatures", "FlashSlothModelOutput"]
