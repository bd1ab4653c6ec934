"""Random weights made in memory: as a constructor would leave the model, but for what the weights say."""

from __future__ import annotations

import pytest
import tiny_shapes
import torch
from torch import nn

from flashsloth.benchmark.models import BASELINES, random_weights
from flashsloth.benchmark.models.random_weights import STANDARD_DEVIATION, draw_weights, make_random
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

CPU = torch.device("cpu")


def construct(name: str, dtype: torch.dtype) -> nn.Module:
    if name == "flashsloth":
        return FlashSlothForConditionalGeneration._from_config(tiny_shapes.flashsloth(), dtype=dtype)
    return tiny_shapes.small_baseline(name).make_model(dtype)


def make(name: str, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    return make_random(lambda: construct(name, dtype), CPU, seed)


@pytest.mark.parametrize("name", ["flashsloth", *BASELINES])
def test_a_model_is_as_its_constructor_leaves_it_but_for_the_weights(name: str) -> None:
    drawn, usual = make(name), construct(name, torch.bfloat16)
    assert not drawn.training
    buffers = dict(drawn.named_buffers())
    assert buffers
    for buffer_name, buffer in usual.named_buffers():
        assert torch.equal(buffers[buffer_name], buffer), buffer_name
    parameters = dict(drawn.named_parameters())
    assert {key: (p.shape, p.dtype) for key, p in parameters.items()} == {
        key: (p.shape, p.dtype) for key, p in usual.named_parameters()
    }
    for key, parameter in parameters.items():
        assert bool(parameter.isfinite().all()), key
        assert float(parameter.abs().max()) <= 1.0, key


@pytest.mark.parametrize("name", ["flashsloth", "qwen2-vl-2b"])
def test_the_same_seed_the_same_weights(name: str) -> None:
    first, same, other = (make(name, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_norms_begin_as_ones_and_everything_else_is_drawn() -> None:
    model = make("flashsloth", dtype=torch.float32)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert norms
    assert all(bool((norm.weight == 1).all()) and bool((norm.bias == 0).all()) for norm in norms)
    linear = model.model.language_model.layers[0].mlp.fc1.weight
    assert float(linear.std()) == pytest.approx(STANDARD_DEVIATION, rel=0.1)
    assert float(linear.mean()) == pytest.approx(0.0, abs=STANDARD_DEVIATION / 10)


def test_tiles_go_on_where_the_last_ended_and_no_rows_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_weights, "BLOCK_NUMBERS", 7)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    draw_weights(model, seed=0)
    flat = torch.cat([parameter.flatten() for parameter in model.parameters()])
    assert torch.equal(flat[7:], flat[:-7])  # one block, again and again
    assert len(flat[:7].unique()) == 7
    weight = model[0].weight
    assert len({tuple(row.tolist()) for row in weight}) == len(weight)


def test_shared_weights_stay_shared() -> None:
    model = make("qwen2-vl-2b")
    assert model.lm_head.weight is model.get_input_embeddings().weight
