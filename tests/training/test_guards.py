"""What stops a run before it does harm: on all processes, before the step, naming the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flashsloth.model.processing_flashsloth import IGNORED_LABEL
from flashsloth.training import distributed
from flashsloth.training.dataloader import ConversationCollator
from flashsloth.training.guards import TrainingStoppedError
from flashsloth.training.metrics import FACTS_KEY, IDS_KEY, CountingCollator, take_facts
from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import train
from flashsloth.training.trainer import StageTrainer
from tests.training import tiny_runs

BAD_STEP = 3
STAGE = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=4, micro_batch_size=2, steps=6, save_every=1)


def spoil_loss(rank: int) -> None:
    """On the last process, the second micro-batch of a step gives a loss that is no number."""
    learn = StageTrainer.compute_loss

    def spoiled(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        loss = learn(self, *arguments, **options)
        last = self.args.process_index == self.args.world_size - 1
        second = len(self._losses) == self.args.gradient_accumulation_steps - 1
        return loss * float("nan") if self.state.global_step + 1 == BAD_STEP and last and second else loss

    StageTrainer.compute_loss = spoiled  # type: ignore[method-assign]


def spoil_gradient(rank: int) -> None:
    """On the last process, a gradient of a step is infinite."""
    learn = StageTrainer.training_step

    def spoiled(self: StageTrainer, model: Any, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == BAD_STEP and self.args.process_index == self.args.world_size - 1:
            weight = self.whole_model.model.projector.linear_1.weight
            hook = weight.register_hook(lambda gradient: gradient + float("inf"))
            try:
                return learn(self, model, *arguments, **options)
            finally:
                hook.remove()
        return learn(self, model, *arguments, **options)

    StageTrainer.training_step = spoiled  # type: ignore[method-assign]


def unsupervise(rank: int) -> None:
    """On the last process, a batch comes without a token to learn from."""
    put_together = ConversationCollator.__call__
    made = []

    def spoiled(self: ConversationCollator, samples: list[Any]) -> dict[str, Any]:
        batch = put_together(self, samples)
        made.append(1)
        if len(made) == BAD_STEP and rank == distributed.count() - 1:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED_LABEL)
        return batch

    ConversationCollator.__call__ = spoiled  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (spoil_loss, "step 3: the loss of samples "),
        (
            spoil_gradient,
            "step 3: the gradient's norm is inf, though every loss is a number, for the batch of samples ",
        ),
        (unsupervise, "step 3: nothing is supervised in the batch of samples "),
    ],
    ids=["loss", "gradient", "nothing supervised"],
)
def test_all_processes_stop_before_the_step_and_name_the_samples(tmp_path: Path, hook: Any, message: str) -> None:
    recipe = tiny_runs.write_recipe(tmp_path, STAGE)
    run = tiny_runs.start(recipe, processes=2, hook=hook)
    assert run.end() == [2, 2], run.said()
    for rank in (0, 1):
        last = run.said(rank).strip().splitlines()[-1]
        assert last.startswith(f"error: {message}")
        assert "(process 1)" in last
        assert "(id '" in last
        assert "Traceback" not in run.said(rank)
    checkpoints = sorted(path.name for path in (tmp_path / "out" / "0-alignment" / "steps").iterdir())
    assert checkpoints == ["checkpoint-1", "checkpoint-2"]


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test's hook changes, changes back."""
    for name in ("compute_loss", "training_step"):
        monkeypatch.setattr(StageTrainer, name, getattr(StageTrainer, name))
    monkeypatch.setattr(ConversationCollator, "__call__", ConversationCollator.__call__)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("hook", [spoil_loss, spoil_gradient, unsupervise])
def test_the_weights_are_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: Any) -> None:
    found: list[dict[str, torch.Tensor]] = []
    models: list[Any] = []
    check = StageTrainer.check_step

    def watched(self: StageTrainer) -> None:
        models[:] = [self.whole_model]
        found.append({name: values.clone() for name, values in self.whole_model.state_dict().items()})
        check(self)

    monkeypatch.setattr(StageTrainer, "check_step", watched)
    hook(0)
    with pytest.raises(TrainingStoppedError) as stopped:
        train(load_recipe(tiny_runs.write_recipe(tmp_path, STAGE)))
    assert "process" not in str(stopped.value)
    assert len(found) in (BAD_STEP, BAD_STEP - 1)  # the third micro-batch is the second step's first
    for name, values in models[0].state_dict().items():
        assert values.equal(found[-1][name]), name


@pytest.mark.usefixtures("restored")
def test_a_held_out_batch_with_nothing_supervised_is_an_error(tmp_path: Path) -> None:
    put_together = ConversationCollator.__call__

    def spoiled(self: ConversationCollator, samples: list[Any]) -> dict[str, Any]:
        batch = put_together(self, samples)
        if any("test" in str(name) for name in batch[IDS_KEY]):
            batch["labels"] = torch.full_like(batch["labels"], IGNORED_LABEL)
        return batch

    ConversationCollator.__call__ = spoiled  # type: ignore[method-assign]
    stage = STAGE.replace("data:", "eval_data: [{world: 1, count: 3, split: test, text: caption}], data:")
    with pytest.raises(TrainingStoppedError, match="evaluation: nothing is supervised in the batch of samples"):
        train(load_recipe(tiny_runs.write_recipe(tmp_path, stage, head="")))


def test_facts_are_counted_without_padding() -> None:
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 0], [5, 0, 0, 0]]),
        "labels": torch.tensor([[5, -100, 7, -100], [-100, -100, -100, -100]]),
        "pixel_values": torch.zeros(3, 1, 3, 2, 2),
        IDS_KEY: ["a", "b"],
    }
    counted = CountingCollator(lambda samples: batch, pad_token_id=0)([1, 2])
    facts = take_facts(counted)
    assert FACTS_KEY not in counted
    assert IDS_KEY not in counted
    assert (facts.ids, facts.samples, facts.lengths, facts.tokens) == (("a", "b"), 2, (3, 1), 4)
    assert facts.supervised == 1  # the first position's label has nothing before it
    assert facts.pictures == 3
