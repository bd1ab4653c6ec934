"""Where the log goes beside the run's folder: TensorBoard and Weights & Biases get all of it, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_runs

from flashsloth.training import run_log
from flashsloth.training.recipe import RecipeError, load_recipe
from flashsloth.training.run import train
from flashsloth.training.trainer import StageTrainer


def die_in_step(patched: pytest.MonkeyPatch, step: int) -> None:
    learn = StageTrainer.training_step

    def dying(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return learn(self, *arguments, **options)

    patched.setattr(StageTrainer, "training_step", dying)


def test_tensorboard_gets_the_log_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=5, save_every=2)
    recipe = load_recipe(tiny_runs.write_recipe(tmp_path, stage, head="report_to: [tensorboard]\n"))
    with monkeypatch.context() as patched:
        die_in_step(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    train(recipe, resume=True)
    events = EventAccumulator(str(tmp_path / "out" / "0-alignment" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert "train/mfu" in events.Tags()["scalars"]


def test_weights_and_biases_gets_a_run_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="Weights & Biases is not installed (pip install wandb)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ended = []
    finish = wandb.finish
    monkeypatch.setattr(
        wandb, "finish", lambda: (ended.append((wandb.run.id, wandb.run.summary["train/global_step"])), finish())
    )
    stages = [
        tiny_runs.with_batch(stage, steps=3, save_every=1) for stage in (tiny_runs.ALIGNMENT, tiny_runs.INSTRUCTION)
    ]
    recipe = load_recipe(tiny_runs.write_recipe(tmp_path, *stages, head="report_to: [wandb]\n"))
    with monkeypatch.context() as patched:
        die_in_step(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    train(recipe, resume=True)
    assert [step for _, step in ended] == [2, 3, 3]
    assert ended[0][0] == ended[1][0] != ended[2][0]
    for stage in ("0-alignment", "1-instruction"):
        assert list((tmp_path / "out" / stage / "wandb").glob("offline-run-*/*.wandb"))


def test_one_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "find_spec", lambda name: None)
    recipe = load_recipe(tiny_runs.write_recipe(tmp_path, tiny_runs.ALIGNMENT, head="report_to: [wandb]\n"))
    with pytest.raises(RecipeError, match="report_to asks for wandb, which is not installed: pip install wandb"):
        train(recipe)
    assert not (tmp_path / "out").exists()
