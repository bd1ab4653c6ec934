"""What a step of training is counted to hold is what its tensors weigh while a real one runs."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import TinyModelMaker

from flashsloth.model.prompt_layout import PromptLayout
from flashsloth.planning.memory import LiveMemory
from flashsloth.training.recipe_fields import AdapterSettings
from flashsloth.training.stages import STAGES, freeze_all_but
from flashsloth.training.step_memory import FULL, HALF, MIXED, MicroBatch, step_bytes

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

COUNTED = 0.1
"""How far the count may be from what a real step holds: masks and positions, which are looked at, are left out."""
WIDE = {**tiny.TEXT, "num_hidden_layers": 3, "intermediate_size": 4 * tiny.TEXT["hidden_size"]}  # type: ignore[operator]
TEXTS: dict[str, dict[str, Any]] = {
    "phi": WIDE,
    "llama": {**WIDE, "model_type": "llama", "num_key_value_heads": 2},
}
BATCHES = {
    "alignment": MicroBatch(rows=4, text_tokens=50, pictures=1, has_queries=False),
    "instruction": MicroBatch(rows=3, text_tokens=80, pictures=2, has_queries=True),
}


def real_inputs(model: Any, batch: MicroBatch) -> dict[str, torch.Tensor]:
    row = PromptLayout(model.config)
    for _ in range(batch.pictures):
        row.add_picture(model.config.num_image_tokens)
    row.add_text([model.config.anchor_token_id] * batch.text_tokens)
    if batch.has_queries:
        row.add_queries(question_start=0)
    inputs = {name: torch.tensor([values] * batch.rows) for name, values in row.lists().items()}
    ids = inputs["input_ids"]
    labels = torch.where(ids == model.config.anchor_token_id, ids, -100)
    pixels = torch.zeros(batch.rows * batch.pictures, 1, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    return {**inputs, "labels": labels, "pixel_values": pixels}


def real_peak(model: Any, trains: tuple[str, ...], batch: MicroBatch, computing: str, again: bool) -> int:
    freeze_all_but(model, trains)
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    learning = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.grad = torch.zeros_like(parameter)
    inputs = real_inputs(model, batch)
    memory = LiveMemory(model)
    memory.leave_out(parameter.grad for parameter in learning)
    memory.leave_out(inputs.values())
    with memory, torch.autocast("cpu", dtype=torch.bfloat16, enabled=computing == MIXED):
        loss = model(**inputs).loss
    with memory:
        loss.backward()
    return memory.peak


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("computing", [FULL, MIXED])
@pytest.mark.parametrize("stage", BATCHES)
@pytest.mark.parametrize("text", TEXTS)
def test_a_real_step(make_tiny_model: TinyModelMaker, text: str, stage: str, computing: str, again: bool) -> None:
    model = make_tiny_model("sdpa", text_config=dict(TEXTS[text]))
    trains, batch = STAGES[stage].trains, BATCHES[stage]
    counted = step_bytes(model.config, trains, batch, computing=computing, activation_checkpointing=again)
    assert counted.activations == pytest.approx(real_peak(model, trains, batch, computing, again), rel=COUNTED)
    assert counted.parameters == model.num_parameters()
    assert counted.learning == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted.weights == sum(p.nbytes for p in model.parameters())


def test_an_encoder_that_learns_and_one_that_is_not_run(make_tiny_model: TinyModelMaker) -> None:
    model, batch = make_tiny_model("sdpa"), BATCHES["instruction"]
    trains = STAGES["instruction_hd"].trains
    counted = step_bytes(model.config, trains, batch, computing=FULL)
    assert counted.activations == pytest.approx(real_peak(model, trains, batch, FULL, False), rel=COUNTED)
    frozen = step_bytes(model.config, STAGES["instruction"].trains, batch, computing=FULL)
    read = step_bytes(model.config, STAGES["instruction"].trains, batch, computing=FULL, encodes=False)
    assert counted.activations > frozen.activations >= read.activations


def test_halves_take_half(make_tiny_model: TinyModelMaker) -> None:
    config, batch = make_tiny_model().config, BATCHES["instruction"]
    full, half = (step_bytes(config, STAGES["instruction"].trains, batch, computing=c) for c in (FULL, HALF))
    assert half.weights * 2 == full.weights
    assert 0.4 < half.activations / full.activations < 0.8


def test_an_adapter_learns_little(make_tiny_model: TinyModelMaker) -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    config, batch = make_tiny_model().config, BATCHES["instruction"]
    trains = tuple(part for part in STAGES["instruction"].trains if part != "head")
    whole = step_bytes(config, trains, batch)
    adapted = step_bytes(config, trains, batch, adapter=AdapterSettings(rank=2))
    assert adapted.learning < whole.learning / 2
    assert adapted.parameters > whole.parameters


def test_true_widths_take_no_memory() -> None:
    """The published size, counted at its full width: nothing is allocated."""
    from flashsloth.model.configuration_flashsloth import PHI2_TEXT_CONFIG, SO400M_VISION_CONFIG, FlashSlothConfig

    config = FlashSlothConfig(
        vision_config={**SO400M_VISION_CONFIG, "num_hidden_layers": 3},
        text_config={**PHI2_TEXT_CONFIG, "num_hidden_layers": 3},
        embq_layer=1,
    )
    batch = MicroBatch(rows=32, text_tokens=310, pictures=1, has_queries=True)
    counted = step_bytes(config, STAGES["instruction"].trains, batch)
    assert counted.activations > 5e9
    assert counted.outside_layers > 2 * 51200 * 2560
