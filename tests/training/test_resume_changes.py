"""Going on with another recipe: what is taken holds from the next step and is written down, the rest is refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from flashsloth.training.guards import TrainingStoppedError
from flashsloth.training.interruptions import TrainingInterrupted
from flashsloth.training.recipe import Recipe, load_recipe
from flashsloth.training.resume import HISTORY_FILE, Reached, RecipeChangedError, accepted_changes, read_history
from flashsloth.training.run import train
from flashsloth.training.trainer import StageTrainer
from tests.training import tiny_runs

STEPS, STOP = 8, 3
ADAPTED = """
model: {path: somewhere}
stages:
  - stage: alignment
    data: [{world: 1, count: 3}]
  - stage: instruction
    data: [{json: a.json, weight: 0.5}, {world: 1, count: 3}]
    adapter: {rank: 4}
    feature_cache: {folder: a, max_gb: 1}
    steps: 20
"""
REACHED = Reached(stage=1, step=9, folder="1-instruction")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(ADAPTED, encoding="utf-8")
    return path


def accepted(path: Path, *changes: str) -> list[tuple[str, int, Any, Any]]:
    taken = accepted_changes(load_recipe(path), load_recipe(path, list(changes)), REACHED, "now")
    assert all((change.time, change.stage) == ("now", "1-instruction") for change in taken)
    return [(change.field, change.step, change.before, change.after) for change in taken]


@pytest.mark.parametrize(
    ("change", "field", "before", "after"),
    [
        ("stages.1.learning_rate=1e-3", "stages.instruction.learning_rate", 2e-5, 1e-3),
        ("stages.1.schedule=constant", "stages.instruction.schedule", "cosine", "constant"),
        ("stages.1.micro_batch_size=2", "stages.instruction.micro_batch_size", None, 2),
        ("stages.1.activation_checkpointing=true", "stages.instruction.activation_checkpointing", "auto", True),
        ("stages.1.max_grad_norm=0.5", "stages.instruction.max_grad_norm", 1.0, 0.5),
        ("stages.1.max_bad_fraction=0.5", "stages.instruction.max_bad_fraction", 0.005, 0.5),
        ("stages.1.eval_every=7", "stages.instruction.eval_every", 500, 7),
        ("stages.1.steps=40", "stages.instruction.steps", 20, 40),
        ("stages.1.steps=9", "stages.instruction.steps", 20, 9),
        ("stages.1.adapter.learning_rate=1e-3", "stages.instruction.adapter.learning_rate", None, 1e-3),
        ("stages.1.feature_cache.max_gb=2", "stages.instruction.feature_cache.max_gb", 1.0, 2.0),
        ("stages.1.precision=bf16", "stages.instruction.precision", "auto", "bf16"),
        ("stages.0.workers=3", "stages.alignment.workers", 1, 3),
        ("report_to=[tensorboard]", "report_to", [], ["tensorboard"]),
        ("output=elsewhere", "output", "runs/recipe", "elsewhere"),
    ],
)
def test_what_may_change(recipe: Path, change: str, field: str, before: Any, after: Any) -> None:
    assert accepted(recipe, change) == [(field, 9, before, after)]
    assert accepted(recipe) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed=9", "seed: the run has 0, found 9: steps would learn from other samples; set it back, or train into"),
        ("stages.1.batch_size=64", "stages.instruction.batch_size: the run has 128, found 64: steps would learn from"),
        ("stages.1.data=[{json: a.json}]", "stages.instruction.data: the run has [{"),
        ("stages.1.data.0.weight=2", "stages.instruction.data.0.weight: the run has 0.5, found 2"),
        ("stages.1.adapter.rank=8", "stages.instruction.adapter.rank: the run has 4, found 8: the adapter's matrices"),
        ("stages.1.feature_cache=null", "stages.instruction.feature_cache: the run has {"),
        ("stages.1.optimizer=muon", "stages.instruction.optimizer: the run has "),
        ("stages.1.trains=[language_model]", "stages.instruction.trains: the run has ["),
        ("stages.1.steps=8", "stages.instruction.steps: the run has 20, found 8: 9 steps are done already"),
        (
            "stages.0.learning_rate=1",
            "stages.alignment.learning_rate: the run has 0.001, found 1.0: that stage is",
        ),
        ("model.system_prompt=Hello", 'model.system_prompt: the run has "", found "Hello": the text of every sample'),
    ],
)
def test_what_may_not_is_refused_by_name(recipe: Path, change: str, message: str) -> None:
    with pytest.raises(RecipeChangedError) as refused:
        accepted(recipe, change, "stages.1.learning_rate=1e-3")
    assert f"cannot go on with {message}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_that_is_refused_is_told_at_once(recipe: Path) -> None:
    with pytest.raises(RecipeChangedError, match=r"cannot go on with 2 changes; set it back") as refused:
        accepted(recipe, "seed=1", "stages.1.shuffle=false", "stages.1.workers=0")
    assert [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]] == [
        "stages.instruction.shuffle",
        "seed",
    ]


def test_stages_to_come_may_change_and_be_added(recipe: Path) -> None:
    short = load_recipe(recipe)
    recipe.write_text(ADAPTED + "  - {stage: encoder, data: [{world: 1, count: 3}]}\n", encoding="utf-8")
    long = load_recipe(recipe)
    (added,) = accepted_changes(short, long, REACHED, "now")
    assert (added.field, added.before, added.after["stage"]) == ("stages.encoder", None, "encoder")
    with pytest.raises(RecipeChangedError, match=r"stages: the run has .*: the run began with other stages"):
        accepted_changes(long, short, REACHED, "now")
    early = Reached(stage=0, step=9, folder="0-alignment")
    (changed,) = accepted_changes(long, load_recipe(recipe, ["stages.1.batch_size=64"]), early, "now")
    assert (changed.field, changed.after) == ("stages.instruction.batch_size", 64)


# Real runs, in this process: stopped, and gone on with.


def tiny(folder: Path, *changes: str, **settings: Any) -> Recipe:
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, **{"batch_size": 2, "steps": STEPS, **settings})
    return load_recipe(tiny_runs.write_recipe(folder, stage), ["model.config.sap_dropout=0.0", *changes])


def stopped(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, step: int = STOP) -> None:
    """Run it and stop after a step."""
    learn = StageTrainer.training_step

    def asked(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return learn(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(StageTrainer, "training_step", asked)
        with pytest.raises(TrainingInterrupted):
            train(recipe)


def logged(recipe: Recipe, name: str) -> list[float]:
    """A number of every step."""
    log = json.loads((recipe.output / "0-alignment" / "log.json").read_text(encoding="utf-8"))
    return [entry[name] for entry in log if "loss" in entry]


def weights(recipe: Recipe) -> dict[str, Any]:
    return load_file(recipe.output / "0-alignment" / "model.safetensors")


def test_another_learning_rate_holds_from_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the optimizer and its schedule were told so between two steps of a run that nobody stopped."""
    changes = ["stages.0.learning_rate=1e-4", "stages.0.weight_decay=0.3", "stages.0.adam_beta2=0.9"]
    stopped(monkeypatch, tiny(tmp_path / "other"))
    train(tiny(tmp_path / "other", *changes, "stages.0.save_every=2"), resume=True)
    learn = StageTrainer.training_step

    def told(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step == STOP:
            self.lr_scheduler.base_lrs = [1e-4] * len(self.optimizer.param_groups)
            self.lr_scheduler._last_lr = [1e-4 * factor(STOP) for factor in self.lr_scheduler.lr_lambdas]
            for group, factor in zip(self.optimizer.param_groups, self.lr_scheduler.lr_lambdas, strict=True):
                group.update(lr=1e-4 * factor(STOP), betas=(0.9, 0.9))
                group["weight_decay"] = 0.3 if any(tensor.ndim > 1 for tensor in group["params"]) else 0.0
        return learn(self, *arguments, **options)

    whole = tiny(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(StageTrainer, "training_step", told)
        train(whole)
    other = tiny(tmp_path / "other")
    for name in ("loss", "learning_rate", "grad_norm"):
        assert logged(other, name) == logged(whole, name)
    assert all(tensor.equal(weights(whole)[name]) for name, tensor in weights(other).items())
    history = read_history(other.output)
    assert [(change.stage, change.step, change.field, change.before, change.after) for change in history] == [
        ("0-alignment", STOP, "stages.alignment.learning_rate", 1e-3, 1e-4),
        ("0-alignment", STOP, "stages.alignment.weight_decay", 0.0, 0.3),
        ("0-alignment", STOP, "stages.alignment.adam_beta2", 0.999, 0.9),
        ("0-alignment", STOP, "stages.alignment.save_every", 5, 2),
    ]
    assert load_recipe(other.output / "recipe.yaml").stages[0].learning_rate == 1e-4
    starts = json.loads((other.output / "run.json").read_text(encoding="utf-8"))["starts"]
    assert [len(start["changes"]) for start in starts] == [0, 4]


def test_another_micro_batch_leaves_every_step_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: dict[int, list[str]] = {}
    check = StageTrainer.check_step

    def noted(self: StageTrainer) -> None:
        learned[self.state.global_step + 1] = sorted(name for facts in self._batches for name in facts.ids)
        check(self)

    monkeypatch.setattr(StageTrainer, "check_step", noted)
    settings = {"batch_size": 4, "steps": 12}  # beyond the end of an epoch
    whole = tiny(tmp_path / "whole", **settings)
    train(whole)
    expected = dict(learned)
    assert [len(samples) for samples in expected.values()] == [4] * 12
    learned.clear()
    stopped(monkeypatch, tiny(tmp_path / "other", **settings))
    other = tiny(tmp_path / "other", "stages.0.micro_batch_size=4", "stages.0.steps=12", **settings)
    train(other, resume=True)
    assert learned == expected
    assert logged(other, "loss") == pytest.approx(logged(whole, "loss"), abs=1e-5)


def test_more_steps_go_on_as_a_run_of_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The learning rate is that of the longer schedule; checkpoints come as often as the recipe says now."""
    stopped(monkeypatch, tiny(tmp_path / "other"))
    other = tiny(tmp_path / "other", "stages.0.steps=12", "stages.0.save_every=4", "stages.0.save_total_limit=9")
    learn = StageTrainer.training_step
    kept: list[set[str]] = []

    def look(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        kept.append({path.name for path in Path(self.args.output_dir).glob("checkpoint-*")})
        return learn(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(StageTrainer, "training_step", look)
        train(other, resume=True)
    assert set().union(*kept) == {"checkpoint-3", "checkpoint-4", "checkpoint-8"}
    longer = tiny(tmp_path / "longer", "stages.0.steps=12")
    train(longer)
    assert len(logged(other, "loss")) == 12
    assert logged(other, "learning_rate")[STOP:] == logged(longer, "learning_rate")[STOP:]
    with pytest.raises(RecipeChangedError, match=r"stages\.alignment\.steps: the run has 12, found 20: that stage is"):
        train(tiny(tmp_path / "other", "stages.0.steps=20", "stages.0.save_every=4"), resume=True)


def test_it_goes_on_in_another_precision_and_into_an_added_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(tmp_path)
    stopped(monkeypatch, recipe)
    more = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=1)
    first = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=STOP + 1)
    file = tiny_runs.write_recipe(tmp_path, first, more)
    changes = ["model.config.sap_dropout=0.0", "stages.0.precision=bf16", "stages.0.schedule=warmup_stable_decay"]
    assert train(load_recipe(file, changes), resume=True) == recipe.output / "1-alignment"
    fields = [change.field for change in read_history(recipe.output)]
    assert fields == ["stages.0.schedule", "stages.0.steps", "stages.0.precision", "stages.1"]


def test_a_run_that_is_killed_says_each_change_once(tmp_path: Path) -> None:
    """Killed before its first checkpoint with new values, it goes on with them from the same step."""
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=400, save_every=5)
    recipe = tiny_runs.write_recipe(tmp_path, stage)
    changed = ("--resume", "--set", "stages.0.learning_rate=1e-4", "--set", "stages.0.save_every=300")
    for arguments in ((), changed, changed):
        run = tiny_runs.start(recipe, *arguments, pause_after=7)
        run.wait_for_step(7)
        run.signal(signal.SIGKILL)
        assert run.end() == [-signal.SIGKILL], run.said()
    history = read_history(tmp_path / "out")
    assert [change.field for change in history] == ["stages.alignment.learning_rate", "stages.alignment.save_every"]
    assert {change.step for change in history} == {history[0].step}
    assert history[0].step % 5 == 0
    assert (tmp_path / "out" / HISTORY_FILE).is_file()


def test_what_a_guard_advises_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample makes the loss no number: it is left out, another stands in, and no other step learns from others."""
    learned: dict[int, list[str]] = {}
    learn, check = StageTrainer.compute_loss, StageTrainer.check_step
    bad = ""

    def spoiled(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        loss = learn(self, *arguments, **options)
        return loss * float("nan") if bad and any(bad in name for name in self._batches[0].ids) else loss

    def noted(self: StageTrainer) -> None:
        learned[self.state.global_step + 1] = sorted(name for facts in self._batches for name in facts.ids)
        check(self)

    monkeypatch.setattr(StageTrainer, "compute_loss", spoiled)
    monkeypatch.setattr(StageTrainer, "check_step", noted)
    settings = {"batch_size": 1, "save_every": 1}
    train(tiny(tmp_path / "whole", **settings))
    expected = dict(learned)
    bad = expected[STOP + 1][0]
    with pytest.raises(TrainingStoppedError, match=r"leave them out \(leave_out: \[numbers\]") as stopped_at:
        train(tiny(tmp_path / "other", **settings))
    assert bad in str(stopped_at.value)
    number = bad.partition(", sample ")[2].partition(" ")[0]
    other = tiny(tmp_path / "other", f"stages.0.data.0.leave_out=[{number}]", **settings)
    train(other, resume=True)
    assert learned[STOP + 1] != expected[STOP + 1]
    assert {step: names for step, names in learned.items() if names != expected[step]}.keys() == {STOP + 1}
    assert [change.field for change in read_history(other.output)] == ["stages.alignment.data.0.leave_out"]
