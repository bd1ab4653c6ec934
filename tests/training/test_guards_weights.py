"""What is no number is not kept: not in a checkpoint, not in a model that a stage leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flashsloth.training.checkpoints import whole
from flashsloth.training.guards import WeightsError, learned_tensors, non_finite_names
from flashsloth.training.optimizer import MuonAndAdamW
from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import train
from flashsloth.training.trainer import StageTrainer
from tests.training import tiny_runs

INFINITY = float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [INFINITY, -INFINITY, float("nan")])
def test_what_is_no_number_is_named(dtype: torch.dtype, bad: float) -> None:
    torch.manual_seed(0)
    spoiled = torch.randn(30, 20).to(dtype)
    spoiled[7, 3] = bad
    tensors = [("good", torch.randn(4).to(dtype)), ("spoiled", spoiled), ("ids", torch.arange(3)), ("no", spoiled[:0])]
    assert non_finite_names(tensors) == (["spoiled"], 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_numbers_whose_sum_is_too_large_are_numbers(dtype: torch.dtype) -> None:
    assert non_finite_names([("large", torch.full((1000,), torch.finfo(dtype).max, dtype=dtype))]) == ([], 1)


def test_infinities_that_cancel_are_found() -> None:
    assert non_finite_names([("both", torch.tensor([INFINITY, -INFINITY, 1.0]))]) == (["both"], 1)


def test_an_optimizers_state_is_looked_at() -> None:
    model = nn.ModuleDict({"one": nn.Linear(3, 3), "two": nn.Linear(3, 2)})
    parts = (
        torch.optim.Muon([model["one"].weight, model["two"].weight], lr=0.1),
        torch.optim.AdamW([model["one"].bias, model["two"].bias], lr=0.1),
    )
    optimizer = MuonAndAdamW(*parts)
    model["two"](model["one"](torch.ones(2, 3))).sum().backward()
    optimizer.step()
    names = [name for name, _ in learned_tensors(model, optimizer)]
    assert "one.weight" in names
    assert "the optimizer's momentum_buffer of two.weight" in names
    assert non_finite_names(learned_tensors(model, optimizer))[0] == []
    parts[1].state[model["one"].bias]["exp_avg_sq"][1] = INFINITY
    assert non_finite_names(learned_tensors(model, optimizer))[0] == ["the optimizer's exp_avg_sq of one.bias"]


SHORT = {"batch_size": 2, "steps": 4, "save_every": 1, "save_total_limit": 9}


def spoil_after(step: int, kind: str) -> Any:
    """A hook: after that step a weight, or what the optimizer keeps of it, is infinite on the last process."""

    def spoil(rank: int) -> None:
        finish = StageTrainer.finish_step

        def spoiled(self: StageTrainer, control: Any) -> None:
            finish(self, control)
            if self.state.global_step == step and self.args.process_index == self.args.world_size - 1:
                weight = self.whole_model.model.projector.linear_1.weight
                state = next(part for part in (self.optimizer.state, self.optimizer.optimizer.state) if part)
                (weight.data if kind == "weight" else state[weight]["exp_avg_sq"])[0, 0] = INFINITY

        StageTrainer.finish_step = spoiled  # type: ignore[method-assign]

    return spoil


def spoil_weight(rank: int) -> None:
    spoil_after(3, "weight")(rank)


def spoil_state(rank: int) -> None:
    spoil_after(3, "state")(rank)


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        (spoil_weight, "(model.projector.linear_1.weight)"),
        (spoil_state, "(the optimizer's exp_avg_sq of model.projector.linear_1.weight)"),
    ],
    ids=["weight", "optimizer"],
)
def test_no_process_keeps_what_one_has_spoiled(tmp_path: Path, hook: Any, name: str) -> None:
    recipe = tiny_runs.write_recipe(tmp_path, tiny_runs.with_batch(tiny_runs.ALIGNMENT, **SHORT))
    run = tiny_runs.start(recipe, processes=2, hook=hook)
    assert run.end() == [1, 1], run.said()
    steps = tmp_path / "out" / "0-alignment" / "steps"
    assert [path.name for path in whole(steps)] == ["checkpoint-1", "checkpoint-2"]
    for rank in (0, 1):
        last = run.said(rank).strip().splitlines()[-1]
        assert last.startswith("error: after step 3, 1 of ")
        assert f"tensors hold infinity or NaN {name}" in last
        assert f"the last good checkpoint is {steps / 'checkpoint-2'}. Set a lower learning_rate than 0.001" in last
        assert "Traceback" not in run.said(rank)
    again = tiny_runs.start(recipe, "--resume", processes=2)
    assert again.end() == [0, 0], again.said()


@pytest.mark.parametrize(("steps", "save_every"), [(3, 1), (3, 100), (2, 100)])
def test_a_learning_rate_out_of_all_measure_leaves_no_model(tmp_path: Path, steps: int, save_every: int) -> None:
    stage = tiny_runs.with_batch(
        tiny_runs.INSTRUCTION, batch_size=2, steps=steps, save_every=save_every, save_total_limit=9
    ).replace("learning_rate: 1e-3", "learning_rate: 3e38, warmup: 0")
    with pytest.raises(WeightsError, match=r"after step \d, \d+ of \d+ tensors hold infinity or NaN .*than 3e\+38"):
        train(load_recipe(tiny_runs.write_recipe(tmp_path, stage)))
    folder = tmp_path / "out" / "0-instruction"
    assert not (folder / "config.json").exists()
    assert not (folder / "model.safetensors").exists()


def test_a_type_that_cannot_hold_the_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = StageTrainer.train

    def grown(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        done = make(self, *arguments, **options)
        self.whole_model.model.projector.linear_1.weight.data[0, 0] = 1e5
        return done

    monkeypatch.setattr(StageTrainer, "train", grown)
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=1)
    with pytest.raises(WeightsError, match=r"model.projector.linear_1.weight holds numbers that float16 cannot"):
        train(load_recipe(tiny_runs.write_recipe(tmp_path, stage, head="export_dtype: float16\n")))
    assert not (tmp_path / "out" / "final").exists()
