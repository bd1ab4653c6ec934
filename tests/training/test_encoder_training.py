"""The patches' loss beside the answers': what it adds, whom it reaches, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flashsloth.training.data import DataError, conversations
from flashsloth.training.dataloader import ConversationCollator
from flashsloth.training.encoder_training import PATCHES_KEY, patch_loss
from flashsloth.training.init_model import start_model
from flashsloth.training.recipe import load_recipe
from flashsloth.training.recipe_fields import DataSource
from flashsloth.training.run import train
from flashsloth.training.stages import STAGES
from flashsloth.training.trainer import StageTrainer
from tests.training.test_run import RECIPE

STAGE = """
  - {{stage: instruction_hd, steps: {steps}, batch_size: 4, micro_batch_size: 2, workers: 0, template: chat,
      patch_loss: 0.5, attention: eager, save_every: 2, data: [{{world: 1, count: 16, independent: true}}]}}
"""


def recipe_of(folder: Path, steps: int) -> Path:
    head = RECIPE.split("stages:")[0].format(output=folder / "out")
    path = folder / "patches.yaml"
    path.write_text(head + "stages:" + STAGE.format(steps=steps), encoding="utf-8")
    return path


@pytest.fixture
def batch_and_model(tmp_path: Path):
    torch.manual_seed(0)
    recipe = load_recipe(recipe_of(tmp_path, 2))
    model, processor = start_model(recipe.model, "eager")
    data = conversations(recipe.stages[0].data, model.config.patch_grid)
    collator = ConversationCollator(processor, recipe.stages[0], "eager")
    return collator([data[index] for index in range(3)]), model.eval()  # nothing drawn: losses are compared exactly


def test_it_adds_the_patches_loss_and_reaches_the_encoder(batch_and_model) -> None:
    batch, model = batch_and_model
    targets = batch.pop(PATCHES_KEY)
    assert {name: tuple(values.shape) for name, values in targets.items()} == dict.fromkeys(
        ("shape", "color", "character", "center"), (3, model.config.num_patches)
    )
    names = set(model.state_dict())
    alone = model(**batch).loss
    with patch_loss(model, 0.5):
        assert torch.equal(model(**batch).loss, alone)
        output = model(**batch, **{PATCHES_KEY: targets})
        expected, _ = model.patch_heads(output.image_outputs.last_hidden_state, targets)
        torch.testing.assert_close(output.loss, alone + 0.5 * expected)
        (output.loss - alone).backward()
        weight = model.model.vision_tower.embeddings.patch_embedding.weight
        assert weight.grad.abs().sum() > 0
    assert set(model.state_dict()) == names
    assert torch.equal(model(**batch).loss, alone)


def test_a_run_with_it_goes_on_where_it_stopped_and_saves_no_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    train(load_recipe(recipe_of(whole, 4)))
    with monkeypatch.context() as patched:
        learn, calls = StageTrainer.training_step, []

        def stop_in_the_third_step(self, *args, **kwargs):
            calls.append(1)
            if len(calls) > 5:  # two micro-batches a step
                raise KeyboardInterrupt
            return learn(self, *args, **kwargs)

        patched.setattr(StageTrainer, "training_step", stop_in_the_third_step)
        with pytest.raises(KeyboardInterrupt):
            train(load_recipe(recipe_of(halves, 4)))
    assert [step.name for step in (halves / "out" / "0-instruction_hd" / "steps").iterdir()] == ["checkpoint-2"]
    train(load_recipe(recipe_of(halves, 4)), resume=True)
    first, second = (load_file(folder / "out" / "final" / "model.safetensors") for folder in (whole, halves))
    assert first.keys() == second.keys()
    assert not any("patch_heads" in name for name in first)
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, msg=name)


def test_pictures_that_were_not_drawn_are_refused() -> None:
    with pytest.raises(DataError, match="patch_loss needs drawn pictures"):
        conversations([DataSource(json="some.json")], patch_grid=4)


def test_no_stage_has_it_unless_a_recipe_says_so() -> None:
    assert all(stage.patch_loss == 0 for stage in STAGES.values())
