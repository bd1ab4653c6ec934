"""Attention where torch's fused one is not the fastest on a CPU: plain products, under names in transformers' table.

In: queries, keys and values. Out: as transformers' attention functions. Softmax sums in float32 inside.

    PLAIN      an encoder's, in bfloat16: all positions see all
    ONE_QUERY  a decoder's: fused for a prompt, plain for the one new position of a step (the fused kernel cuts its work
               along the queries, and with one of them reads keys and values at a fraction of the memory's speed)

Legend: B batch, H heads, K key heads, G = H/K queries of one key head, T queries, S keys, D head width; C columns that
there is room for where keys and values are the beginning of larger buffers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from flashsloth.errors import SpeedError

PLAIN, ONE_QUERY = "plain", "one_query"


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
    """softmax(query keyᵀ · scaling) value: float [B, H, S, D] each -> float [B, S, H, D]."""
    if attention_mask is not None or dropout:
        raise SpeedError("plain attention is for answering, in an encoder: it takes neither a mask nor dropout")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = torch.matmul(query * scale, key.transpose(2, 3)).softmax(dim=-1)  # [B, H, S, S]
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def one_query_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,  # what transformers hands to every attention function
) -> tuple[torch.Tensor, None]:
    """As transformers' `sdpa`: query float [B, H, T, D], key and value [B, K, S, D] -> float [B, T, H, D].

    The mask, if any, is bool [B, 1, T, S], true where a query sees a key. Where keys and values are the beginning of
    larger buffers, what follows in these is read as well, and must be finite.
    """
    if query.shape[2] > 1 or dropout:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    batch, heads, _, width = query.shape
    scale = width**-0.5 if scaling is None else scaling
    grouped = (query * scale).view(batch, key.shape[1], -1, width)  # [B, K, G, D]
    seen = key.shape[2]
    key, value = _whole_buffers(key, value)  # [B, K, C, D]
    scores = torch.matmul(grouped, key.transpose(2, 3))  # [B, K, G, C]
    scores[..., seen:] = -torch.inf
    if attention_mask is not None:
        scores[..., :seen].masked_fill_(~attention_mask, -torch.inf)
    found = torch.matmul(scores.softmax(dim=-1), value)  # [B, K, G, D]
    return found.view(batch, 1, heads, width), None


def _whole_buffers(key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The buffers [B, K, C, D] that keys and values [B, K, S, D] begin, or these themselves.

    In bfloat16 a product copies what is not contiguous, and the beginnings of buffers are not: reading the rest of the
    buffers costs less. It also keeps the product's shape from step to step, so that its kernel is made once.
    """
    _, heads, _, width = key.shape
    columns = key.stride(1) // width
    wanted = (heads * columns * width, columns * width, width, 1)
    if key.dtype != torch.bfloat16 or not key.stride() == value.stride() == wanted:
        return key, value
    whole = (key.shape[0], heads, columns, width)
    return key.as_strided(whole, wanted), value.as_strided(whole, wanted)


AttentionInterface.register(PLAIN, plain_attention)
AttentionInterface.register(ONE_QUERY, one_query_attention)
AttentionMaskInterface.register(ONE_QUERY, sdpa_mask)
