"""The best step is kept and may be what a stage leaves; a stage may end early; going on changes none of it."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from flashsloth.training.base_trainer import Best, ScoreError
from flashsloth.training.checkpoints import SaveError, whole
from flashsloth.training.guards import TrainingStoppedError
from flashsloth.training.interruptions import TrainingInterrupted
from flashsloth.training.recipe import RecipeError, StageRun, load_recipe
from flashsloth.training.run import train
from flashsloth.training.trainer import StageTrainer
from tests.training import tiny_runs

HELD_OUT = "eval_data: [{world: 1, count: 3, split: test, text: caption}], data:"


def stage_of(**changes: Any) -> str:
    """Twelve steps, evaluated after every second one, at a rate at which it is soon worse again."""
    values = {"batch_size": 2, "steps": 12, "save_every": 5, "save_total_limit": 1, "eval_every": 2, **changes}
    return tiny_runs.with_batch(tiny_runs.ALIGNMENT, **values).replace("data:", HELD_OUT)


def run_of(folder: Path, **changes: Any) -> StageRun:
    return load_recipe(tiny_runs.write_recipe(folder, stage_of(**changes))).stages[0]


def evaluations(folder: Path, name: str = "eval_loss") -> dict[int, float]:
    log = json.loads((folder / "out" / "0-alignment" / "log.json").read_text(encoding="utf-8"))
    return {entry["step"]: entry[name] for entry in log if "eval_loss" in entry}


def best_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "out" / "0-alignment" / "best.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_the_best_is_the_least_loss_or_the_most_right(tmp_path: Path) -> None:
    by_loss, by_right = run_of(tmp_path, best_by="loss"), run_of(tmp_path, best_by="right")
    best = Best()
    found = [best.look(by_loss, {"eval_loss": loss}, step) for step, loss in enumerate([3.0, 2.0, 2.0, 1.0, 4.0])]
    assert found == [True, True, False, True, False]
    assert (best.value, best.step, best.waited) == (1.0, 3, 1)
    best = Best()
    assert [best.look(by_right, {"eval_right": share}, 0) for share in (0.1, 0.1, 0.3)] == [True, False, True]
    with pytest.raises(ScoreError, match="best_by is right, which the evaluations of stage alignment do not find"):
        Best().look(by_right, {"eval_loss": 1.0}, 0)


def test_small_gains_do_not_count_but_the_best_is_the_best(tmp_path: Path) -> None:
    run = run_of(tmp_path, best_by="loss", patience=2, least_gain=0.5)
    best = Best()
    for step, loss in enumerate([3.0, 2.8, 2.4, 2.3]):
        best.look(run, {"eval_loss": loss}, step)
    assert (best.step, best.waited, best.is_over(run)) == (3, 1, False)  # 2.4 gained on 3.0, 2.3 not on 2.4
    best.look(run, {"eval_loss": 2.2}, 4)
    assert (best.step, best.is_over(run)) == (4, True)
    assert Best(**json.loads(json.dumps(asdict(best)))) == best


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leave": "best"}, "leave: needs best_by"),
        ({"patience": 2}, "patience: needs best_by"),
        ({"best_by": "loss", "patience": 0}, "patience"),
        ({"best_by": "luck"}, "best_by"),
        ({"best_by": "loss", "least_gain": -1}, "least_gain"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        run_of(tmp_path, **changes)


def test_the_best_is_kept_and_left_also_by_a_run_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(best_by="right", leave="best")
    whole_run, other = (tiny_runs.write_recipe(tmp_path / name, stage) for name in ("whole", "other"))
    train(load_recipe(whole_run))
    found = evaluations(tmp_path / "whole", "eval_right")
    assert sorted(found) == [2, 4, 6, 8, 10, 12]
    best = max(found, key=lambda step: found[step])
    assert best < 10  # in twelve steps nothing is right yet: of equals the first is best; the rotation would take it
    folder = tmp_path / "whole" / "out" / "0-alignment"
    kept = folder / "steps" / f"checkpoint-{best}"
    assert [path.name for path in whole(folder / "steps")] == [f"checkpoint-{best}", "checkpoint-12"]
    record = best_of(tmp_path / "whole")
    assert (record["step"], record["value"], record["checkpoint"]) == (best, found[best], str(kept))
    left, saved = load_file(folder / "model.safetensors"), load_file(kept / "model.safetensors")
    assert all(left[name].equal(saved[name]) for name in left)

    for step in (3, 7):  # one with the best before it, one after
        with monkeypatch.context() as patched:
            tiny_runs.stop_in(patched, step)
            with pytest.raises(TrainingInterrupted):
                train(load_recipe(other), resume=True)
    train(load_recipe(other), resume=True)
    assert evaluations(tmp_path / "other", "eval_right") == found
    again = load_file(tmp_path / "other" / "out" / "0-alignment" / "model.safetensors")
    assert all(left[name].equal(again[name]) for name in left)
    ignored = {"checkpoint"}
    assert {k: v for k, v in best_of(tmp_path / "other").items() if k not in ignored} == {
        k: v for k, v in record.items() if k not in ignored
    }


def test_a_stage_that_gains_nothing_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(best_by="loss", patience=2, least_gain=1000, save_every=100)
    recipe = tiny_runs.write_recipe(tmp_path, stage)
    with monkeypatch.context() as patched:
        tiny_runs.stop_in(patched, 5)  # after the second evaluation, the first without a gain
        with pytest.raises(TrainingInterrupted):
            train(load_recipe(recipe))
    train(load_recipe(recipe), resume=True)
    assert sorted(evaluations(tmp_path)) == [2, 4, 6]
    assert best_of(tmp_path)["stopped_early"] is True
    assert (tmp_path / "out" / "0-alignment" / "config.json").is_file()


def test_a_stage_that_ended_early_and_was_killed_then_takes_no_more_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_runs.write_recipe(tmp_path, stage_of(best_by="loss", patience=1, least_gain=1000))
    with monkeypatch.context() as patched:
        patched.setattr("flashsloth.training.stage_training._save", lambda *arguments: (_ for _ in ()).throw(KeyError))
        with pytest.raises(KeyError):
            train(load_recipe(recipe))
    train(load_recipe(recipe), resume=True)
    assert sorted(evaluations(tmp_path)) == [2, 4]


def test_a_best_that_is_damaged_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_runs.write_recipe(tmp_path, stage_of(best_by="right", leave="best"))
    learn = StageTrainer.train

    def spoil(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        done = learn(self, *arguments, **options)
        file = self.checkpoint_of(self.best.step or 0) / "model.safetensors"
        found = bytearray(file.read_bytes())
        found[-1] ^= 1
        file.write_bytes(found)
        return done

    monkeypatch.setattr(StageTrainer, "train", spoil)
    with pytest.raises(SaveError, match=r"the best, is not whole \(model.safetensors is not what was written"):
        train(load_recipe(recipe))


def test_an_evaluation_that_is_no_number_names_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = StageTrainer.compute_loss

    def spoiled(self: StageTrainer, model: Any, *arguments: Any, **options: Any) -> Any:
        found = look(self, model, *arguments, **options)
        if model.training or not isinstance(found, tuple):
            return found
        return found[0] * math.nan, found[1]

    monkeypatch.setattr(StageTrainer, "compute_loss", spoiled)
    recipe = tiny_runs.write_recipe(tmp_path, stage_of(save_every=1))
    with pytest.raises(TrainingStoppedError, match=r"evaluation after step 2: the loss of samples .* is nan"):
        train(load_recipe(recipe))
    assert [path.name for path in whole(tmp_path / "out" / "0-alignment" / "steps")] == ["checkpoint-1"]


def test_a_signal_does_not_wait_for_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = tiny_runs.write_recipe(tmp_path / "whole", stage_of(best_by="loss"))
    train(load_recipe(reference))
    recipe = tiny_runs.write_recipe(tmp_path / "other", stage_of(best_by="loss"))
    look = StageTrainer.prediction_step
    looked = []

    def asked(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        looked.append(self.state.global_step)
        if self.state.global_step == 4:
            signal.raise_signal(signal.SIGTERM)
        return look(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(StageTrainer, "prediction_step", asked)
        with pytest.raises(TrainingInterrupted, match="after step 4 of 12"):
            train(load_recipe(recipe))
    assert looked.count(4) == 1
    train(load_recipe(recipe), resume=True)
    assert evaluations(tmp_path / "other") == evaluations(tmp_path / "whole")
    assert best_of(tmp_path / "other")["step"] == best_of(tmp_path / "whole")["step"]
