"""The baselines are what they are called: published sizes, their own processors' tokens, and transformers' own loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny_shapes
import torch
from torch import nn
from transformers import GenerationMixin
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from flashsloth.benchmark.measure import STEP, count_flops
from flashsloth.benchmark.models import BASELINES, BaselineModel, make_baseline
from flashsloth.benchmark.models.lfm2_vl import fitting_size
from flashsloth.benchmark.models.minicpm_v2 import MiniCpmV2Resampler, slice_grid, view_size
from flashsloth.benchmark.models.random_weights import make_random
from flashsloth.benchmark.timing import ENCODER, LANGUAGE, POOLING, PREPARE, PROJECTOR, StageClock, WallTime
from flashsloth.benchmark.workload import HEIGHT, MODELS, WIDTH, StandardJob
from flashsloth.errors import BenchmarkError

CPU = torch.device("cpu")
JOB = StandardJob(text_tokens=16, new_tokens=3)
VISUAL_TOKENS = {
    "qwen2-vl-2b": 391,
    "internvl2-2b": 1792,
    "minicpm-v2": 192,
    "smolvlm-2.2b": 1053,
    "lfm2-vl-1.6b": 234,
}
MARKERS = {"qwen2-vl-2b": 2, "internvl2-2b": 2, "minicpm-v2": 8, "smolvlm-2.2b": 4 * 3 * 2 + 3 + 3, "lfm2-vl-1.6b": 2}
TIED = ("qwen2-vl-2b", "minicpm-v2", "lfm2-vl-1.6b")
LANGUAGE_MODELS = {  # published sizes of the language models alone, embeddings and head included
    "qwen2-vl-2b": 1.54e9,
    "internvl2-2b": 1.89e9,
    "minicpm-v2": 2.72e9,
    "smolvlm-2.2b": 1.81e9,
    "lfm2-vl-1.6b": 1.17e9,
}


@pytest.fixture(scope="module")
def small() -> Callable[[str], BaselineModel]:
    """Tiny baselines, each made once."""
    made: dict[str, BaselineModel] = {}

    def get(name: str) -> BaselineModel:
        if name not in made:
            made[name] = make_baseline(tiny_shapes.small_baseline(name), torch.bfloat16, CPU, JOB)
        return made[name]

    return get


def parameters(modules: Any) -> int:
    found = {id(p): p.numel() for module in modules for p in module.parameters()}
    return sum(found.values())


@pytest.mark.parametrize("name", BASELINES)
def test_published_sizes(name: str) -> None:
    baseline = BASELINES[name]()
    with torch.device("meta"):
        model = baseline.make_model(torch.bfloat16)
    if name in TIED:
        assert baseline.parts(model)[LANGUAGE][1].weight is baseline.embeddings(model).weight
    assert parameters([model]) == pytest.approx(MODELS[name].parameters, rel=0.02)
    assert parameters(baseline.parts(model)[LANGUAGE]) == pytest.approx(LANGUAGE_MODELS[name], rel=0.02)


@pytest.mark.parametrize("name", BASELINES)
def test_visual_tokens_of_the_standard_picture(name: str) -> None:
    baseline = BASELINES[name]()
    ids = baseline.picture_ids(baseline.prepare(StandardJob().picture(0)))
    assert ids.count(baseline.image_id) == VISUAL_TOKENS[name]
    assert len(ids) == VISUAL_TOKENS[name] + MARKERS[name]


def test_tokens_are_those_that_transformers_own_processors_announce() -> None:
    assert Qwen2VLImageProcessorPil().get_number_of_image_patches(HEIGHT, WIDTH) == 4 * VISUAL_TOKENS["qwen2-vl-2b"]
    smol = SmolVLMImageProcessorPil(size={"longest_edge": 1536}, max_image_size={"longest_edge": 384})
    tiles = smol.get_number_of_image_patches(HEIGHT, WIDTH)
    assert (tiles[0] if isinstance(tiles, tuple) else tiles) * 81 == VISUAL_TOKENS["smolvlm-2.2b"]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_does_the_standard_job(small: Callable[[str], BaselineModel], name: str) -> None:
    model = small(name)
    clock = StageClock(WallTime())
    with clock.watching(model.parts):
        model.answer(JOB.picture(1), question=0, new_tokens=3, clock=clock)
    assert len(clock.tokens()) == 3
    spent = clock.stages()
    pooled = POOLING if name == "minicpm-v2" else PROJECTOR
    assert all(spent[stage] > 0 for stage in (PREPARE, ENCODER, pooled, LANGUAGE)), spent
    assert model.positions >= JOB.text_tokens + model.visual_tokens


@pytest.mark.parametrize("name", BASELINES)
def test_nothing_ends_an_answer_early(name: str) -> None:
    baseline = tiny_shapes.small_baseline(name)
    model = make_random(lambda: baseline.make_model(torch.float32), CPU, seed=0)
    for module in model.modules():
        if isinstance(module, GenerationMixin):
            module.generation_config.eos_token_id = list(range(baseline.config.text_config.vocab_size))
    clock = StageClock(WallTime())
    BaselineModel(baseline, model, JOB).answer(JOB.picture(1), question=0, new_tokens=3, clock=clock)
    assert len(clock.tokens()) == 3


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_does_many_jobs_at_once(small: Callable[[str], BaselineModel], name: str) -> None:
    model = small(name)
    clock = StageClock(WallTime())
    with clock.counting_steps(model.head):
        model.answer_batch([JOB.picture(number) for number in range(2)], new_tokens=3)
    assert len(clock.tokens()) == 3


@pytest.mark.parametrize("name", BASELINES)
def test_operations_of_a_baseline(small: Callable[[str], BaselineModel], name: str) -> None:
    model = small(name)
    flops = count_flops(model, JOB)
    assert flops[PREPARE] == 0
    assert flops[ENCODER] > 0
    assert flops[LANGUAGE] > model.positions * flops[STEP] / 3  # the head is run once in either
    assert flops[STEP] >= 2 * model.step_bytes / torch.bfloat16.itemsize * 0.9  # norms and biases are no products


@pytest.mark.parametrize("name", BASELINES)
def test_what_a_token_reads(small: Callable[[str], BaselineModel], name: str) -> None:
    model = small(name)
    language, head = model.parts[LANGUAGE]
    looked_up = language.get_input_embeddings().weight.numel()
    everything = sum(p.numel() for p in language.parameters()) + head.weight.numel()
    assert model.step_bytes == (everything - looked_up) * torch.bfloat16.itemsize


def test_keys_and_values_of_grouped_heads_and_of_few_attention_layers(small: Callable[[str], BaselineModel]) -> None:
    width = 48 // 4
    assert small("internvl2-2b").key_value_bytes == 2 * 3 * 2 * width * 2
    assert small("lfm2-vl-1.6b").key_value_bytes == 2 * 1 * 2 * width * 2  # two of its three layers are convolutions


def test_the_same_seed_the_same_answer() -> None:
    answers = []
    for _ in range(2):
        model = make_baseline(tiny_shapes.small_baseline("minicpm-v2"), torch.float32, CPU, JOB)
        torch.manual_seed(len(answers))
        with torch.no_grad():
            answers.append(model.model._look(torch.ones(1, 3, 28, 42)))
    assert torch.equal(*answers)
    assert bool(answers[0].isfinite().all())


def test_slices_as_the_published_code_cuts_them() -> None:
    assert view_size(640, 480, 14) == (518, 392)
    assert slice_grid(640, 480) == (2, 1)
    assert slice_grid(480, 640) == (1, 2)
    assert slice_grid(1344, 1344) == (3, 3)
    with pytest.raises(BenchmarkError, match="is not sliced"):
        slice_grid(400, 300)


def test_a_pictures_size_for_lfm2() -> None:
    assert fitting_size(640, 480, 32) == (576, 416)
    assert fitting_size(300, 200, 32) == (288, 192)
    with pytest.raises(BenchmarkError, match="would be cut into tiles"):
        fitting_size(1024, 768, 32)


def test_a_resampler_attends_to_where_patches_are() -> None:
    torch.manual_seed(0)
    resampler = MiniCpmV2Resampler(8, 128, torch.float32)
    nn.init.normal_(resampler.query)
    features = torch.rand(1, 6, 8)
    moved = features.flip(1)
    with torch.no_grad():
        first, second = resampler(features, (2, 3)), resampler(moved, (2, 3))
    assert first.shape == (1, 64, 128)
    assert not torch.allclose(first, second)
