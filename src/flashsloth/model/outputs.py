"""What a FlashSloth's passes return.

Legend: B batch, T positions, N pictures, W views a picture, P patches and R windows a view, V vision width, D
language-model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, ModelOutput


@dataclass
class FlashSlothImageFeatures(ModelOutput):
    """What the encoder side makes of N pictures.

    Attributes:
        last_hidden_state: float [N, W*P, V], F: the uncompressed features, views one after the other.
        pooler_output: float [N, W*R, D], the visual tokens.
        hidden_states, attentions: the encoder's, of each of the N*W views, a tensor a layer, where they were asked for.
        image_views: int64 [N], the views of each picture, where some have fewer than W: what is theirs stands first,
            and zeros after it. None: all have W.
    """

    last_hidden_state: torch.Tensor = None  # type: ignore[assignment]  # always given: ModelOutput wants a default
    pooler_output: torch.Tensor = None  # type: ignore[assignment]
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_views: torch.Tensor | None = None


@dataclass
class FlashSlothModelOutput(BaseModelOutputWithPast):
    """`last_hidden_state` float [B, T, D] and what the language model was asked to return beside it.

    Its keys and values are where the installed transformers has them: `cache` since 5.24, `past_key_values` before.
    """

    image_outputs: FlashSlothImageFeatures | None = None


@dataclass
class FlashSlothCausalLMOutput(CausalLMOutputWithPast):
    """`loss` [], `logits` float [B, T or fewer, vocabulary] and what the language model returned beside them, its keys
    and values by the same name as in :class:`FlashSlothModelOutput`.

    Where the loss was made without logits in evaluation, `predicted` int64 [B, T] has the most likely token after each
    position whose next token is supervised, and 0 elsewhere.
    """

    predicted: torch.Tensor | None = None
    image_outputs: FlashSlothImageFeatures | None = None
