"""Embedded Query (EmbQ): inside the language model, the query tokens read the question, then the whole picture.

In: the hidden states that enter one decoder layer, where the queries and their questions stand in them, and the
encoder's uncompressed features F.
Out: the same hidden states, the query positions updated: what pooling threw away but the question needs comes back
(FlashSloth, section 3.3).

Legend: B batch, T positions, n turns (all of the batch's), Q queries a turn, L longest question, S samples, P patches
of a sample's pictures, V vision width, D language-model width, E query width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from flashsloth.model.configuration_flashsloth import FlashSlothConfig


class EmbqReached:
    """Whether a pass has reached EmbQ; one and the same for all copies of its inputs."""

    def __init__(self) -> None:
        self.yes = False


@dataclass
class EmbeddedQueryInputs:
    """Where the turns of one pass stand, and what their queries may look at.

    Attributes:
        query_index: int64 [n, Q], positions of each turn's queries in the batch's flattened [B*T].
        question_index: int64 [n, L], positions of each turn's question in the same.
        question_mask: bool [n, L], which of them are real.
        features: float [S, P, V], F of each sample's pictures, one after the other, zero-padded.
        feature_row: int64 [n], the row of `features` that each turn reads.
        feature_mask: bool [n, P], what a turn may look at: pictures that stand before its queries. A turn that may look
            at nothing keeps its query states. None: everything, for every turn.
        picture_rows: rows of `features` that a picture has; None: as many as all its views have patches.
        reached: whether the pass has reached EmbQ. An object of its own, since what wraps layers may give them a copy
            of these inputs, as FSDP2 does where the encoder learns.
        keep: takes these inputs and the weights over the patches, float32 [n, H, Q, P], where someone wants to see them
            (`attention_maps.py`).
    """

    query_index: torch.Tensor
    question_index: torch.Tensor
    question_mask: torch.Tensor
    features: torch.Tensor
    feature_row: torch.Tensor
    feature_mask: torch.Tensor | None = None
    picture_rows: int | None = None
    reached: EmbqReached = None  # type: ignore[assignment]  # each gets its own, below
    keep: AttentionKeeper | None = None

    def __post_init__(self) -> None:
        if self.reached is None:  # not a `default_factory`: torch cannot compile one
            self.reached = EmbqReached()

    def to(self, device: torch.device | str | int, **options: Any) -> EmbeddedQueryInputs:
        """Move every tensor, in place: what splits a model over devices calls this before each part."""
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, torch.Tensor):
                setattr(self, part.name, value.to(device, **options))
        return self


AttentionKeeper = Callable[[EmbeddedQueryInputs, torch.Tensor], None]


class QueryTokens(nn.Module):
    """The Q trained vectors that stand at the query positions. A module, so that adapters can name and save it."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.num_query_tokens, config.text_config.hidden_size))

    def forward(self, anchor: torch.Tensor) -> torch.Tensor:
        """Add the anchor token's embedding, float [D], to every query vector: float [Q, D]."""
        return self.weight + anchor


class ZeroLinear(nn.Linear):
    """A linear layer that begins as zeros: with it as the way back, an untrained EmbQ changes nothing.

    The first gradient step already moves it (its input is not zero), then everything before it.
    """

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class CrossAttention(nn.Module):
    """Multi-head attention with neither output projection nor residual; scores and softmax in float32."""

    def __init__(self, query_size: int, value_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(query_size, query_size)
        self.k_proj = nn.Linear(query_size, query_size)
        self.v_proj = nn.Linear(value_size, value_size)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        row: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend.

        Args:
            query: float [n, Q, E].
            key: float [S, K, E].
            value: float [S, K, C].
            mask: bool [n, K], which keys a turn may see; a turn that sees none gets zeros.
            row: int64 [n], the row of keys and values each turn attends to; None where S is n, in order.

        Returns:
            What was found, float [n, Q, C], and the weights by which, float32 [n, H, Q, K].
        """
        keys, values = self.k_proj(key), self.v_proj(value)
        if row is not None:
            keys, values = keys[row], values[row]
        weights = self.weights(self.q_proj(query), keys, mask)  # [n, H, Q, K]
        return self._join(weights.to(values.dtype) @ self._split(values)), weights

    def weights(self, queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Attention weights of projected queries [n, Q, E] over projected keys [n, K, E]: float32 [n, H, Q, K]."""
        with torch.autocast(queries.device.type, enabled=False):
            split_queries, split_keys = self._split(queries).float(), self._split(keys).float()
            scores = split_queries @ split_keys.transpose(-1, -2) / math.sqrt(split_queries.shape[-1])
            if mask is None:
                return scores.softmax(dim=-1)
            visible = mask[:, None, None, :]
            lowest = torch.finfo(scores.dtype).min  # not -inf: a turn that sees nothing would become NaN
            return scores.masked_fill(~visible, lowest).softmax(dim=-1) * visible

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """[n, K, C] -> [n, H, K, C/H]."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _join(self, states: torch.Tensor) -> torch.Tensor:
        """[n, H, Q, C/H] -> [n, Q, C]."""
        return states.transpose(1, 2).flatten(-2)


class EmbeddedQuery(nn.Module):
    """One EmbQ block: queries attend to their question, the result attends to F, and comes back to the LLM's width."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        vision_size, text_size = config.vision_config.hidden_size, config.text_config.hidden_size
        size, heads = config.query_size, config.embq_num_heads
        self.down_text = nn.Linear(text_size, size)
        self.down_image = nn.Linear(vision_size, size)
        self.norm_query = nn.LayerNorm(size)
        self.norm_text = nn.LayerNorm(size)
        self.norm_image = nn.LayerNorm(size)
        self.text_attention = CrossAttention(size, size, heads)
        self.image_attention = CrossAttention(size, vision_size, heads)
        self.up = ZeroLinear(vision_size, text_size)

    def forward(self, hidden_states: torch.Tensor, inputs: EmbeddedQueryInputs) -> torch.Tensor:
        """Update the query positions.

        Args:
            hidden_states: float [B, T, D], what enters the decoder layer.
            inputs: where the turns stand and what they may look at.

        Returns:
            float [B, T, D], equal to `hidden_states` everywhere but at the queries of turns that see a picture.
        """
        flat = hidden_states.flatten(0, 1)  # [B*T, D]
        query_states = flat[inputs.query_index]  # [n, Q, D]
        update = self.look(query_states, flat[inputs.question_index], inputs)  # [n, Q, D]
        if inputs.feature_mask is not None:
            update = update * inputs.feature_mask.any(dim=-1)[:, None, None]
        updated = (query_states + update).to(flat.dtype).flatten(0, 1)  # [n*Q, D]
        return flat.index_copy(0, inputs.query_index.flatten(), updated).view_as(hidden_states)

    def look(
        self, query_states: torch.Tensor, question_states: torch.Tensor, inputs: EmbeddedQueryInputs
    ) -> torch.Tensor:
        """What each query brings back: float [n, Q, D] of queries [n, Q, D] and questions [n, L, D]."""
        query = self.norm_query(self.down_text(query_states))  # [n, Q, E]
        text = self.norm_text(self.down_text(question_states))  # [n, L, E]
        asked, _ = self.text_attention(query, text, text, mask=inputs.question_mask)  # [n, Q, E]
        image = self.norm_image(self.down_image(inputs.features))  # [S, P, E]
        seen, weights = self.image_attention(
            asked, image, inputs.features, mask=inputs.feature_mask, row=inputs.feature_row
        )  # [n, Q, V], [n, H, Q, P]
        if inputs.keep is not None:
            inputs.keep(inputs, weights)
        return self.up(seen)
