"""Attention as three plain operations, which on a CPU in bfloat16 beats the fused one for an encoder's shape.

In: queries, keys and values of an encoder, all positions seeing all. Out: as transformers' attention functions, under
the name :data:`PLAIN` in its table. Scores are kept in the model's precision; softmax sums in float32 inside.

Legend: B pictures, H heads, P positions, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from flashsloth.speed.errors import SpeedError

PLAIN = "plain"


def plain_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,  # what transformers hands to every attention function
) -> tuple[torch.Tensor, None]:
    """softmax(query keyᵀ · scaling) value: float [B, H, P, D] each -> float [B, P, H, D]."""
    if attention_mask is not None or dropout:
        raise SpeedError("plain attention is for answering, in an encoder: it takes neither a mask nor dropout")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = torch.matmul(query * scale, key.transpose(2, 3)).softmax(dim=-1)  # [B, H, P, P]
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(PLAIN, plain_attention)

__all__ = ["PLAIN", "plain_attention"]
