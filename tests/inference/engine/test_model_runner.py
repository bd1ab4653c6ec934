"""Which runner a model gets."""

from __future__ import annotations

import pytest
from graph_engines import LoadCalm

from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.engine.graph_runner import GraphRunner, make_runner
from flashsloth.inference.engine.model_runner import BatchedRunner, SingleRunner
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.vision import ImageEncoder
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration


def test_it_hangs_on_the_attention(tiny_model: FlashSlothForConditionalGeneration) -> None:
    assert isinstance(make_runner(tiny_model, 0, EngineConfig(), 1 << 20), SingleRunner)  # eager: its masks are others
    tiny_model.set_attn_implementation("sdpa")
    runner = make_runner(tiny_model, 0, EngineConfig(), 1 << 20)
    assert type(runner) is BatchedRunner
    assert runner.encode is None
    assert not runner.counts.degraded
    assert runner.warm_up(4, 64) == (0, 0, 0)


@pytest.mark.needs("cuda")
def test_on_cuda_passes_are_replayed(load_calm: LoadCalm) -> None:
    sloth = load_calm("phi")
    cache = PictureCache(0)
    encoder = ImageEncoder(sloth.model, sloth.processor.image_processor, cache)
    engine = Engine(sloth.model, sloth.processor.tokenizer, encoder, cache)
    assert isinstance(engine.runner, GraphRunner)
    assert encoder.encode is engine.runner.encode
