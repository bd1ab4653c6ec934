"""An adapter is trained on without being merged: the same layout, what it had learned is there, no other adapter."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fine_tuned import save_base
from safetensors.torch import load_file

import flashsloth
from flashsloth.checkpoint.adapter import AdapterError, read_adapter
from flashsloth.training.interruptions import TrainingInterrupted
from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import train
from flashsloth.training.trainer import StageTrainer

RECIPE = """
name: adapted
output: {output}
seed: 3
model: {{path: {start}}}
matrix_rate: 1.0e9
stages:
  - {{stage: instruction, steps: {steps}, batch_size: 4, micro_batch_size: 2, workers: 0, template: chat,
      learning_rate: 1.0e-2, adapter: {{rank: 2, learning_rate: 3.0e-2}}, data: [{{world: 1, count: 16}}]}}
"""
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = {**tiny.TEXT, "hidden_size": 16}
    return save_base(tmp_path_factory.mktemp("base") / "base", torch.float16, text_config=text)


def recipe_of(folder: Path, start: Path, *changes: str, steps: int = 2) -> Any:
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.format(output=folder / "out", start=start, steps=steps), encoding="utf-8")
    return load_recipe(file, list(changes))


@pytest.fixture(scope="module")
def first(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first round left."""
    return train(recipe_of(tmp_path_factory.mktemp("first"), base, steps=3))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def test_a_second_round_leaves_what_the_first_one_did(first: Path, tmp_path: Path) -> None:
    second = train(recipe_of(tmp_path, first))
    before, after = weights_of(first), weights_of(second)
    assert {name: tensor.shape for name, tensor in before.items()} == {n: t.shape for n, t in after.items()}
    assert any(not before[name].equal(after[name]) for name in before)
    one, two = (json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")) for folder in (first, second))
    assert {**one, "target_modules": 0, "modules_to_save": 0} == {**two, "target_modules": 0, "modules_to_save": 0}
    assert sorted(one["modules_to_save"]) == sorted(two["modules_to_save"])
    assert read_adapter(second).base == read_adapter(first).base
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    assert flashsloth.load(second, optimize=False).model is not None


def test_what_was_learned_is_where_it_goes_on_from(first: Path, tmp_path: Path) -> None:
    """At a rate of nearly nothing it stays what it was, to the last bit."""
    still = ("stages.0.learning_rate=1e-30", "stages.0.adapter.learning_rate=1e-30")
    second = train(recipe_of(tmp_path, first, *still))
    before, after = weights_of(first), weights_of(second)
    assert all(before[name].equal(after[name]) for name in before)


def test_a_second_round_that_was_stopped_comes_to_the_same(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(recipe_of(tmp_path / "whole", first, steps=4))
    learn = StageTrainer.training_step

    def asked(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == 2:
            signal.raise_signal(signal.SIGTERM)
        return learn(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(StageTrainer, "training_step", asked)
        with pytest.raises(TrainingInterrupted):
            train(recipe_of(tmp_path / "other", first, steps=4))
    other = train(recipe_of(tmp_path / "other", first, steps=4), resume=True)
    one, two = weights_of(whole), weights_of(other)
    assert all(one[name].equal(two[name]) for name in one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.0.adapter.rank=4", r"adapter.rank is 4, that of the adapter 2; adapter.alpha is 8.0, .* 4.0"),
        ("stages.0.adapter.alpha=3", r"adapter.alpha is 3.0, that of the adapter 4.0"),
        ("stages.0.adapter.targets=[q_proj]", r"adapter.targets is \['q_proj'\], that of the adapter \["),
        ("stages.0.trains=[projector, query_tokens, embq, language_model]", r"trains is \['embq', .*'sap'\]"),
    ],
)
def test_an_adapter_is_not_trained_on_as_another(first: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        train(recipe_of(tmp_path, first, change))


def test_an_adapter_is_not_trained_on_beside_another_base(first: Path, base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base, tmp_path / "base")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    adapter = shutil.copytree(first, tmp_path / "adapter")
    said = json.loads((adapter / "base.json").read_text(encoding="utf-8"))
    (adapter / "base.json").write_text(json.dumps({**said, "name": str(other)}), encoding="utf-8")
    with pytest.raises(AdapterError, match="is not the base of"):
        train(recipe_of(tmp_path / "run", adapter))
