"""What a pass is estimated to hold is what its tensors weigh while it runs."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from prompts import prompt_inputs
from tiny import TinyModelMaker
from transformers import DynamicCache

from flashsloth.inference.vision import PICTURES_AT_A_TIME
from flashsloth.model.configuration_flashsloth import PHI2_TEXT_CONFIG, SO400M_VISION_CONFIG, FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.planning.flops import Cost, Precision, Workload
from flashsloth.planning.memory import LiveMemory, activation_bytes, encode_bytes, prompt_bytes

FLOAT32 = Precision(torch.float32)
ESTIMATED = 0.2
"""How far the estimate may be from what is held."""
FEW_LAYERS: dict[str, Any] = {
    "vision_config": {**SO400M_VISION_CONFIG, "num_hidden_layers": 3},
    "text_config": {**PHI2_TEXT_CONFIG, "num_hidden_layers": 2},
    "embq_layer": 1,
}
WIDE = {**tiny.TEXT, "intermediate_size": 4 * tiny.TEXT["hidden_size"]}  # type: ignore[operator]
TEXTS: dict[str, dict[str, Any]] = {
    "phi": WIDE,
    "llama": {**WIDE, "model_type": "llama", "num_key_value_heads": 2},
    "gpt2": {"model_type": "gpt2", "vocab_size": tiny.VOCABULARY, "n_embd": 48, "n_layer": 4, "n_head": 4},
}


def look_peak(model: FlashSlothForConditionalGeneration, pictures: int) -> int:
    side, views = model.config.vision_config.image_size, model.config.num_views
    with torch.no_grad(), LiveMemory(model) as memory:
        model.get_image_features(torch.zeros(pictures, views, 3, side, side))
    return memory.peak


def test_the_count_follows_what_lives() -> None:
    with LiveMemory(torch.nn.Linear(1, 1)) as memory:
        first = torch.zeros(100)
        view = first.view(10, 10)
        for _ in range(3):
            torch.zeros(50).add_(1)
        second = view + 1
        del first, view
        third = torch.zeros(20)
    assert memory.peak == 4 * (100 + 100)
    assert memory.held == 4 * (100 + 20) == second.nbytes + third.nbytes


@pytest.mark.parametrize("grid", [1, 2])
def test_looking_at_true_width(grid: int) -> None:
    config = FlashSlothConfig(**FEW_LAYERS, image_grid=grid)
    with torch.device("meta"):
        model = FlashSlothForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
        peaks = {pictures: look_peak(model, pictures) for pictures in (1, 3)}
    found = {n: encode_bytes(Cost.of(config), Workload(n), FLOAT32, keeps_scores=True) for n in peaks}
    assert found == pytest.approx(peaks, rel=ESTIMATED)


def test_looking_without_scores(make_tiny_model: TinyModelMaker) -> None:
    vision = {**tiny.VISION, "intermediate_size": 4 * tiny.VISION["hidden_size"]}  # type: ignore[operator]
    model = make_tiny_model("sdpa", vision_config=vision)
    found = encode_bytes(Cost.of(model.config), Workload(2), FLOAT32, keeps_scores=False)
    assert found == pytest.approx(look_peak(model, 2), rel=ESTIMATED)


@pytest.mark.parametrize(
    "work", [Workload(1, 100), Workload(2, 300, batch=4), Workload(0, 50)], ids=["short", "long, four rows", "text"]
)
@pytest.mark.parametrize("text", TEXTS)
def test_reading_a_prompt(make_tiny_model: TinyModelMaker, text: str, work: Workload) -> None:
    model = make_tiny_model("sdpa", text_config=dict(TEXTS[text]))
    cost, config = Cost.of(model.config), model.config
    inputs: dict[str, Any] = prompt_inputs(config, work)
    if work.pictures:
        with torch.no_grad():
            views = torch.zeros(work.all_pictures, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
            inputs["mm_encoder_outputs"] = {"image": model.get_image_features(views)}
    with torch.no_grad(), LiveMemory(model) as memory:
        cache = DynamicCache(config=config.text_config)
        model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    kept = work.batch * cost.positions(work) * cost.key_value_bytes(FLOAT32)
    assert prompt_bytes(cost, work, FLOAT32) + kept == pytest.approx(memory.peak, rel=ESTIMATED)


def test_the_most_of_both_counts() -> None:
    cost = Cost.of(FlashSlothConfig())
    few, many = Workload(PICTURES_AT_A_TIME), Workload(PICTURES_AT_A_TIME + 1)
    looked = [encode_bytes(cost, work, FLOAT32, keeps_scores=True) for work in (few, many)]
    assert looked[0] == looked[1]  # no more at a time than in one pass
    long = Workload(1, 500, batch=64)
    assert activation_bytes(cost, few, FLOAT32, keeps_scores=True) == looked[0]
    assert activation_bytes(cost, long, FLOAT32, keeps_scores=False) == prompt_bytes(cost, long, FLOAT32)
