"""Operations are counted stage by stage, whatever attention's operator is called."""

from __future__ import annotations

import pytest
import tiny_shapes
import torch
import torch.nn.functional as F

from flashsloth.benchmark.measure import STEP, count_flops
from flashsloth.benchmark.models.flashsloth import make_published_size
from flashsloth.benchmark.timing import ENCODER, LANGUAGE, OTHER, POOLING, PREPARE, PROJECTOR, QUERY
from flashsloth.benchmark.workload import StandardJob
from flashsloth.planning.flops import counting

CPU = torch.device("cpu")
JOB = StandardJob(text_tokens=16, new_tokens=4)


def attention_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return (query @ key.transpose(-1, -2)).softmax(-1) @ value


def test_fused_attention_counts_as_its_products_do() -> None:
    query, key, value = torch.rand(2, 3, 5, 16), torch.rand(2, 3, 7, 16), torch.rand(2, 3, 7, 16)
    counts = []
    for attention in (attention_products, F.scaled_dot_product_attention):
        with torch.no_grad(), counting() as counter:
            attention(query, key, value)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 2 * 2 * 3 * 5 * 7 * (16 + 16)


def test_stages_of_a_flashsloth() -> None:
    config = tiny_shapes.flashsloth()
    model = make_published_size(1, torch.float32, CPU, JOB, config)
    flops = count_flops(model, JOB)
    vision, text = config.vision_config, config.text_config
    patches, windows = config.num_patches, config.num_windows
    width, wide = vision.hidden_size, text.hidden_size
    assert flops[PREPARE] == flops[OTHER] == 0
    assert flops[POOLING] == 2 * patches * width * (width + 1) + 2 * patches * width  # scorer, weighted sum
    assert flops[PROJECTOR] == 2 * windows * (width * wide + wide * wide)
    layers = config.num_vision_layers * 2 * patches * (4 * width**2 + 2 * width * vision.intermediate_size)
    attention = config.num_vision_layers * 2 * 2 * patches**2 * width
    assert flops[ENCODER] == layers + attention + 2 * patches * width * 3 * vision.patch_size**2
    assert flops[QUERY] > 0
    weights = text.num_hidden_layers * (4 * wide**2 + 2 * wide * text.intermediate_size)
    held = model.positions + 1
    attended = text.num_hidden_layers * 2 * 2 * held * wide
    step = 2 * (weights + wide * text.vocab_size) + attended
    assert flops[STEP] == pytest.approx(step, rel=1e-3)  # some versions make rotary angles by a product
    assert flops[LANGUAGE] > 2 * weights * model.positions
