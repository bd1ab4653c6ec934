"""How much work training is: what torch counts in a step is what is told beforehand; and the lines that say so."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, picture, user

from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.planning.flops import counting
from flashsloth.training.metrics import (
    CountingCollator,
    Meter,
    StepSums,
    TrainingCost,
    measure_matrix_rate,
    take_facts,
    training_cost,
)
from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import train
from flashsloth.training.run_log import Progress, duration
from flashsloth.training.stages import STAGES, freeze_all_but
from tests.training import tiny_runs

CLOSE = 0.1
"""EmbQ is counted too high, for a question as long as the text and with gradients that a frozen encoder does not need:
a tenth of so small a model, and little of a large one."""
WIDE = {
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 24,
        "patch_size": 4,
    },
    "query_size": 64,
}
"""Sizes at which the large products are most of the work, as in a model that one trains."""


@pytest.mark.parametrize("stage", ["alignment", "instruction", "instruction_hd"])
def test_a_steps_work_is_what_torch_counts(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, stage: str
) -> None:
    model = make_tiny_model(attention="eager", **WIDE).train()
    freeze_all_but(model, STAGES[stage].trains)
    conversation = [user("What is this?", picture()), assistant("a red dog and a blue chair " * 8)]
    batch = CountingCollator(
        lambda samples: encode(tiny_processor, samples[0], return_labels=True), tiny_processor.tokenizer.pad_token_id
    )([conversation])
    facts = take_facts(batch)
    with counting() as counter:
        model(**batch).loss.backward()
    told = TrainingCost(model, answers=True).flops(facts)
    assert told == pytest.approx(counter.get_total_flops(), rel=CLOSE)


def test_frozen_and_learning_parts_have_their_share_of_work(make_tiny_model: TinyModelMaker) -> None:
    model = make_tiny_model()
    for stage, expected in (
        ("alignment", (1, 2, 3, 2, 2, 2)),  # SAP's scorer is the first that learns: nothing before it needs a gradient
        ("instruction", (1, 2, 3, 3, 3, 3)),
        ("instruction_hd", (3, 3, 3, 3, 3, 3)),
    ):
        freeze_all_but(model, STAGES[stage].trains)
        factors = TrainingCost(model, answers=True).factors
        assert tuple(factors.values()) == pytest.approx(expected), stage


def test_a_model_whose_work_cannot_be_told_is_no_error(make_tiny_model: TinyModelMaker) -> None:
    model = make_tiny_model()
    model.config.text_config.kv_lora_rank = 8
    told = training_cost(model, answers=True)
    assert isinstance(told, str)
    assert "compressed keys and values" in told


def test_the_machines_rate_is_measured_without_touching_random_numbers() -> None:
    before = torch.get_rng_state()
    rate = measure_matrix_rate(torch.device("cpu"), torch.float32)
    assert rate is not None
    assert rate > 1e6
    assert torch.equal(torch.get_rng_state(), before)
    assert measure_matrix_rate(torch.device("meta"), torch.float32) is None


def test_sums_come_back_out_of_a_checkpoint_and_speeds_are_this_process_own() -> None:
    meter, later = Meter(), Meter()
    meter.begin_step()
    meter.has_data()
    meter.end_step(StepSums(loss=3.0, steps=1, samples=4, tokens=40, flops=8.0))
    later.since_log = StepSums(**asdict(meter.since_log))
    assert later.take(2_000_000_000) == {"loss": 3.0, "peak_memory_gb": 2.0}
    later.since_log = StepSums(**asdict(meter.since_log))
    later.matrix_rate = 1e9
    later.begin_step()
    later.has_data()
    later.end_step(StepSums(loss=1.0, steps=1, samples=4, tokens=40, flops=8.0))
    line = later.take(0)
    assert line["loss"] == 2.0
    assert line["tokens_per_second"] == pytest.approx(10 * line["samples_per_second"])
    assert line["mfu"] == pytest.approx(8.0 * line["samples_per_second"] / 4 / 1e9)
    assert 0 <= line["waiting_for_data"] <= 1
    assert later.take(0)["loss"] == 0.0


def test_a_line_of_progress() -> None:
    numbers = {
        "loss": 1.23456,
        "learning_rate": 2e-5,
        "grad_norm": 0.5,
        "seconds_per_step": 2.0,
        "samples_per_second": 64.0,
        "tokens_per_second": 12345.0,
        "mfu": 0.413,
        "waiting_for_data": 0.02,
        "peak_memory_gb": 31.2,
    }
    assert Progress("1-instruction", 100, 2080, numbers).line() == (
        "1-instruction 100/2080 5% · loss 1.2346 · lr 2.00e-05 · gradient 0.5 · 64 samples/s · 12.3k tokens/s · "
        "MFU 41.3% · 2% waiting for data · 31.20 GB at most · 1 h 06 min left"
    )
    assert Progress("0-encoder", 0, 0, {}).line() == "0-encoder 0/0 100% · "


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ({}, "loss 0.5000"),
        ({"eval_right": 0.875, "eval_right_colour": 0.5}, "loss 0.5000 · 87.5% right"),
        ({"eval_right_shape": 0.5, "eval_right_center": 1.0}, "loss 0.5000 · 50.0% shape right · 100.0% center right"),
    ],
)
def test_an_evaluation_in_a_line(shares: dict[str, float], text: str) -> None:
    found = Progress("1-instruction", 50, 100, {"eval_loss": 0.5, **shares}).held_out()
    assert found == f"1-instruction 50/100 · held out: {text}"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (260, "4 min 20 s"), (11520, "3 h 12 min")])
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_whoever_watches_hears_every_line(tmp_path: Path) -> None:
    heard: list[Progress] = []
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=4, log_every=2)
    train(load_recipe(tiny_runs.write_recipe(tmp_path, stage)), watch=heard.append)
    assert [(progress.stage, progress.step, progress.steps) for progress in heard] == [
        ("0-alignment", 2, 4),
        ("0-alignment", 4, 4),
    ]
    expected = {"loss", "learning_rate", "grad_norm", "samples_per_second", "tokens_per_second", "mfu"}
    assert all(expected <= set(progress.numbers) for progress in heard)
    assert heard[-1].seconds_left == 0
