"""SAP and EmbQ against the arithmetic as the paper writes it, a window and a head at a time."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import make_config
from torch.nn.functional import linear

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.embedded_query import CrossAttention, EmbeddedQuery, EmbeddedQueryInputs
from flashsloth.model.spatial_attention_pooling import SpatialAttentionPooling

TURNS, LENGTH, SAMPLES, PATCHES = 3, 11, 2, 36


@pytest.fixture
def config(tiny_tokenizer) -> FlashSlothConfig:
    return make_config(tiny_tokenizer)


def plain_pooling(pooling: SpatialAttentionPooling, features: torch.Tensor) -> torch.Tensor:
    """Window by window, row by row."""
    grid, size = pooling.patch_grid, pooling.pool_size
    square = features.view(len(features), grid, grid, -1)
    tokens = []
    for top in range(0, grid, size):
        for left in range(0, grid, size):
            window = square[:, top : top + size, left : left + size].flatten(1, 2)  # [N, k*k, V]
            hidden = linear(window, pooling.score_in.weight, pooling.score_in.bias).relu()
            scores = linear(hidden, pooling.score_out.weight, pooling.score_out.bias)  # [N, k*k, 1]
            tokens.append((scores.softmax(dim=1) * window).sum(dim=1))
    return torch.stack(tokens, dim=1)


def test_pooling(config: FlashSlothConfig) -> None:
    torch.manual_seed(0)
    pooling = SpatialAttentionPooling(config).eval()
    features = torch.randn(2, config.num_patches, config.vision_config.hidden_size)
    torch.testing.assert_close(pooling(features), plain_pooling(pooling, features))
    saliency = pooling.saliency(features)
    assert saliency.shape == (2, 6, 6)
    torch.testing.assert_close(saliency[:, :3, :3].sum(dim=(1, 2)), torch.ones(2))
    weighted = (saliency[:, :3, 3:, None] * features.view(2, 6, 6, -1)[:, :3, 3:]).sum(dim=(1, 2))
    torch.testing.assert_close(weighted, pooling(features)[:, 1])


def plain_attention(
    attention: CrossAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """One turn, a head at a time: [Q, E], [K, E], [K, C] to [Q, C]."""
    queries, keys, values = attention.q_proj(query), attention.k_proj(key), attention.v_proj(value)
    heads = []
    for q, k, v in zip(*(states.chunk(attention.num_heads, dim=-1) for states in (queries, keys, values)), strict=True):
        heads.append((q @ k.T / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v)
    return torch.cat(heads, dim=-1)


def test_embedded_query(config: FlashSlothConfig) -> None:
    torch.manual_seed(0)
    block = EmbeddedQuery(config)
    torch.nn.init.normal_(block.up.weight)
    torch.nn.init.normal_(block.up.bias)
    states = torch.randn(2, LENGTH, config.text_config.hidden_size)
    features = torch.randn(SAMPLES, PATCHES, config.vision_config.hidden_size)
    inputs = EmbeddedQueryInputs(
        query_index=torch.tensor([[3, 4, 5], [8, 9, 10], [14, 15, 16]]),
        question_index=torch.tensor([[1, 2], [6, 7], [12, 0]]),
        question_mask=torch.tensor([[True, True], [True, True], [True, False]]),
        features=features,
        feature_row=torch.tensor([0, 0, 1]),
        feature_mask=torch.tensor([[True] * 18 + [False] * 18, [True] * 36, [False] * 36]),
    )
    expected = states.flatten(0, 1).clone()
    for turn in range(TURNS - 1):  # the last may look at nothing and keeps its states
        queries = expected[inputs.query_index[turn]]
        question = states.flatten(0, 1)[inputs.question_index[turn][inputs.question_mask[turn]]]
        seen = features[inputs.feature_row[turn]][inputs.feature_mask[turn]]
        query, text = (block.down_text(part) for part in (queries, question))
        query, text = block.norm_query(query), block.norm_text(text)
        asked = plain_attention(block.text_attention, query, text, text)
        image = block.norm_image(block.down_image(seen))
        expected[inputs.query_index[turn]] = queries + block.up(
            plain_attention(block.image_attention, asked, image, seen)
        )
    torch.testing.assert_close(block(states, inputs).flatten(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_a_turn_that_sees_nothing_has_finite_gradients(config: FlashSlothConfig) -> None:
    block = EmbeddedQuery(config)
    states = torch.randn(1, LENGTH, config.text_config.hidden_size, requires_grad=True)
    inputs = EmbeddedQueryInputs(
        query_index=torch.tensor([[3, 4, 5]]),
        question_index=torch.tensor([[0]]),
        question_mask=torch.tensor([[False]]),
        features=torch.randn(1, PATCHES, config.vision_config.hidden_size),
        feature_row=torch.tensor([0]),
        feature_mask=torch.zeros(1, PATCHES, dtype=torch.bool),
    )
    block(states, inputs).sum().backward()
    assert torch.equal(states.grad, torch.ones_like(states))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_scores_are_float32(config: FlashSlothConfig, dtype: torch.dtype) -> None:
    """Scores that half precision cannot hold do not overflow."""
    attention = CrossAttention(16, 16, 4).to(dtype)
    queries = torch.full((1, 3, 16), 200.0, dtype=dtype)
    keys = torch.full((1, 5, 16), 200.0, dtype=dtype)
    weights = attention.weights(queries, keys, None)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.full_like(weights, 0.2))


def test_inputs_move_together() -> None:
    inputs = EmbeddedQueryInputs(*(torch.zeros(1, 1) for _ in range(4)), feature_row=torch.zeros(1))
    assert inputs.to("meta") is inputs
    assert {inputs.query_index.device.type, inputs.features.device.type, inputs.feature_row.device.type} == {"meta"}
    assert inputs.feature_mask is None
