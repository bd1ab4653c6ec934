"""The language model's head, and the loss of its tokens without the logits of all of them at once.

In: hidden states. Out: logits; or, with the tokens that should follow, the sum of their cross-entropies in float32.

A vocabulary of 51,200 makes 205 kB of float32 logits a token, and their gradient as much again. Only supervised
positions go through the head, `ROWS_AT_A_TIME` of them at a time, and backward computes each chunk's logits again.

All chunks are made inside *one* call of the head's module: where its weight is sharded (FSDP, ZeRO-3), every call is a
collective operation, and ranks with more supervised tokens than others would wait for each other for ever.

Legend: B batch, T positions, n supervised positions of the batch, D language-model width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

IGNORED_LABEL = -100
"""The label of a position where nothing is learned."""
ROWS_AT_A_TIME = 512
"""Positions that have logits at the same time: 105 MB of float32 in Phi-2's vocabulary."""


class TokenLosses(NamedTuple):
    """`total` float32 [], the sum of all cross-entropies; `predicted` int64 [n], the most likely tokens, or None."""

    total: torch.Tensor
    predicted: torch.Tensor | None


class LanguageModelHead(nn.Linear):
    """A linear layer to the vocabulary that can make the loss itself."""

    def forward(self, states: torch.Tensor, targets: torch.Tensor | None = None) -> Any:
        """Logits float [.., vocabulary] of states float [.., D]; with targets int64 [n], :class:`TokenLosses`."""
        if targets is None:
            return super().forward(states)
        return sum_by_chunks(partial(F.linear, weight=self.weight, bias=self.bias), states, targets, self.training)


def next_tokens(labels: torch.Tensor) -> torch.Tensor:
    """What should follow each position: int64 [B, T] of labels [B, T], `IGNORED_LABEL` after the last."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)


def token_losses(head: Any, hidden_states: torch.Tensor, targets: torch.Tensor) -> tuple[TokenLosses, torch.Tensor]:
    """The loss of next tokens.

    Args:
        head: a :class:`LanguageModelHead`, also inside PEFT's wrappers.
        hidden_states: float [B, T, D].
        targets: int64 [B, T], the token after each position, `IGNORED_LABEL` where none is learned.

    Returns:
        The losses of the n supervised positions, and bool [B, T]: which positions those are.
    """
    targets = targets.to(hidden_states.device)
    supervised = targets != IGNORED_LABEL
    states, wanted = hidden_states[supervised], targets[supervised]  # [n, D], [n]
    if hasattr(head, "base_layer"):  # an adapter adds to the layer's output, so it must be the logits
        return sum_by_chunks(head, states, wanted, head.training), supervised
    return head(states, wanted), supervised


def sum_by_chunks(
    logits_of: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor, targets: torch.Tensor, training: bool
) -> TokenLosses:
    """Add up the cross-entropies of int64 [n] after states float [n, D]; `predicted` where not in training."""
    totals, predicted = [], []
    several = len(states) > ROWS_AT_A_TIME
    # Without a supervised position there is still one chunk, an empty one: the head's parameters keep their gradient.
    for chunk, wanted in zip(states.split(ROWS_AT_A_TIME), targets.split(ROWS_AT_A_TIME), strict=True):
        if training and several:
            totals.append(checkpoint(_cross_entropy, logits_of, chunk, wanted, use_reentrant=False))
            continue
        logits = logits_of(chunk)
        totals.append(F.cross_entropy(logits.float(), wanted, reduction="sum"))
        if not training:
            predicted.append(logits.argmax(dim=-1))
    return TokenLosses(torch.stack(totals).sum(), None if training else torch.cat(predicted))


def _cross_entropy(
    logits_of: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    return F.cross_entropy(logits_of(states).float(), targets, reduction="sum")
