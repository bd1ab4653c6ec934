"""A run that was stopped, by whatever means, learns what the run that was not stopped learns: to the last bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from flashsloth.training.data import Joined
from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import RunExistsError, train
from flashsloth.training.stop import TrainingInterrupted
from flashsloth.training.trainer import StageTrainer
from tests.training import tiny_runs

SIGTERM_EXIT, STOPPED = 143, "go on with --resume"
STOP_AT, KILL_AT, STEPS = 9, 40, 60


def folder_of(stage: str) -> str:
    return "0-" + stage.split(",")[0].removeprefix("stage: ")


def assert_same_run(whole: Path, other: Path, stage: str, steps: int = STEPS) -> None:
    """Every loss, every weight, and what is left behind."""
    name = folder_of(stage)
    expected = tiny_runs.losses(whole, name)
    assert [step for step, _ in expected] == list(range(1, steps + 1))
    assert tiny_runs.losses(other, name) == expected
    one, two = (load_file(path.parent / "out" / name / "model.safetensors") for path in (whole, other))
    assert one.keys() == two.keys()
    assert all(one[key].equal(two[key]) for key in one)


def stopped_and_killed(folder: Path, stage: str, processes: int, **changes: Any) -> tuple[Path, Path]:
    """One run at one go; one that is asked to stop, goes on, is killed, and goes on."""
    whole = tiny_runs.write_recipe(folder / "whole", tiny_runs.with_batch(stage, **changes))
    run = tiny_runs.start(whole, processes=processes)
    assert run.end() == [0] * processes, run.said()
    other = tiny_runs.write_recipe(folder / "other", tiny_runs.with_batch(stage, **changes))
    run = tiny_runs.start(other, processes=processes)
    run.wait_for_step(STOP_AT)
    run.signal(signal.SIGTERM, ranks=(processes - 1,))  # one of them hears it, all stop
    assert run.end() == [SIGTERM_EXIT] * processes, run.said()
    assert STOPPED in run.said()
    run = tiny_runs.start(other, "--resume", processes=processes)
    run.wait_for_step(KILL_AT)
    run.signal(signal.SIGKILL)
    assert run.end() == [-signal.SIGKILL] * processes, run.said()
    run = tiny_runs.start(other, "--resume", processes=processes)
    assert run.end() == [0] * processes, run.said()
    assert "going on from" in run.said()
    return whole, other


QUICK = [
    (tiny_runs.ALIGNMENT, 2, 0, 4),
    (tiny_runs.INSTRUCTION, 1, 4, 2),
]
EVERY = [
    (stage, processes, workers, 4)
    for stage in (tiny_runs.ALIGNMENT, tiny_runs.INSTRUCTION)
    for processes in (1, 2)
    for workers in (0, 4)
]


@pytest.mark.parametrize(
    ("stage", "processes", "workers", "batch"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in EVERY)],
    ids=lambda value: folder_of(value) if isinstance(value, str) else str(value),
)
def test_losses_are_equal_to_the_last_bit(tmp_path: Path, stage: str, processes: int, workers: int, batch: int) -> None:
    changes = {"workers": workers, "batch_size": batch, "steps": STEPS, "save_every": 12}
    assert_same_run(*stopped_and_killed(tmp_path, stage, processes, **changes), stage)


def killed_at_random(folder: Path, times: int, steps: int, seed: int) -> None:
    """Kill a run again and again, wherever it is; whole checkpoints make it come to the same end."""
    draw = random.Random(seed)
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=steps, save_every=1, save_total_limit=1)
    whole, other = (tiny_runs.write_recipe(folder / name, stage) for name in ("whole", "other"))
    reference = tiny_runs.start(whole)
    assert reference.end() == [0], reference.said()
    kills, goal = 0, 0
    while kills < times:
        run = tiny_runs.start(other, "--resume")
        goal = min(steps - 2, goal + draw.randint(1, max(1, steps // times)))
        run.wait_for_step(goal)
        time.sleep(draw.uniform(0, 0.05))  # somewhere in a step, or in the writing of a checkpoint
        run.signal(signal.SIGKILL)
        assert run.end()[0] in (-signal.SIGKILL, 0), run.said()
        kills += 1
    last = tiny_runs.start(other, "--resume")
    assert last.end() == [0], last.said()
    assert_same_run(whole, other, tiny_runs.ALIGNMENT, steps)


def test_a_run_that_is_killed_at_random_comes_to_the_same_end(tmp_path: Path) -> None:
    killed_at_random(tmp_path, times=3, steps=12, seed=1)


@pytest.mark.slow
def test_a_run_that_is_killed_many_times_comes_to_the_same_end(tmp_path: Path) -> None:
    killed_at_random(tmp_path, times=40, steps=60, seed=2)


# In this process: quicker, and every part can be looked at.


def recipe_with(folder: Path, *stages: str, head: str = "") -> Any:
    return load_recipe(tiny_runs.write_recipe(folder, *stages, head=head))


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ask a run to stop in a step."""
    learn = StageTrainer.training_step

    def asked(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return learn(self, *arguments, **options)

    monkeypatch.setattr(StageTrainer, "training_step", asked)


SHORT = {"batch_size": 2, "steps": 8, "save_every": 100}


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_stopping_puts_an_evaluation_off_and_log_sums_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, **{**SHORT, "log_every": 3, "eval_every": 4}).replace(
        "data:", "eval_data: [{world: 1, count: 3, split: test, text: caption}], data:"
    )
    train(recipe_with(tmp_path / "whole", stage))
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        with pytest.raises(TrainingInterrupted, match=f"after step {step} of 8"):
            train(recipe_with(tmp_path / "other", stage))
    train(recipe_with(tmp_path / "other", stage), resume=True)
    names = ("loss", "eval_loss", "eval_right", "learning_rate", "grad_norm", "step")
    logs = [
        [
            {name: entry[name] for name in names if name in entry}
            for entry in load_log(tmp_path / run)
            if "loss" in entry or "eval_loss" in entry
        ]
        for run in ("whole", "other")
    ]
    assert logs[0] == logs[1]
    assert [entry["step"] for entry in logs[0]] == [3, 4, 6, 8]


def load_log(folder: Path) -> list[dict[str, Any]]:
    import json

    return json.loads((folder / "out" / "0-alignment" / "log.json").read_text(encoding="utf-8"))


def test_samples_that_were_learned_from_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    take = Joined.__getitem__
    monkeypatch.setattr(Joined, "__getitem__", lambda self, index: (read.append(index), take(self, index))[1])
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, **SHORT)
    with monkeypatch.context() as patched:
        stop_after(patched, 6)
        with pytest.raises(TrainingInterrupted):
            train(recipe_with(tmp_path, stage))
    learned, ahead = read[:12], 1  # two samples a step; accelerate takes a micro-batch ahead
    assert len(read) == len(learned) + ahead
    read.clear()
    train(recipe_with(tmp_path, stage), resume=True)
    assert len(read) == 2 * 2 + ahead
    assert not set(read) & set(learned)


def test_a_second_call_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = tuple(tiny_runs.with_batch(stage, **SHORT) for stage in (tiny_runs.ALIGNMENT, tiny_runs.INSTRUCTION))
    recipe = recipe_with(tmp_path, *stages)
    with monkeypatch.context() as patched:
        stop_after(patched, 6)
        with pytest.raises(TrainingInterrupted):
            train(recipe)
    with pytest.raises(RunExistsError, match=r"stopped in 0-alignment: go on from step 6 with --resume, start another"):
        train(recipe)
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        patched.setattr("flashsloth.training.run.set_seed", lambda seed: None)
        with pytest.raises(TrainingInterrupted):
            train(recipe, resume=True)  # the first stage to its end, and one step of the second
    with pytest.raises(RunExistsError, match=r"stopped in 1-instruction: go on from step 1"):
        train(recipe)


def test_a_checkpoint_of_other_weights_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    from flashsloth.training.checkpoints import MANIFEST, SaveError, last_whole

    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, **SHORT)
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        with pytest.raises(TrainingInterrupted):
            train(recipe_with(tmp_path, stage))
    checkpoint = last_whole(tmp_path / "out" / "0-alignment" / "steps")
    assert checkpoint is not None
    weights = load_file(checkpoint / "model.safetensors")
    renamed = {name.replace("projector", "projektor"): values for name, values in weights.items()}
    save_file(renamed, checkpoint / "model.safetensors", metadata={"format": "pt"})
    manifest = checkpoint / MANIFEST
    size = (checkpoint / "model.safetensors").stat().st_size
    import json

    said = json.loads(manifest.read_text(encoding="utf-8"))
    said["files"]["model.safetensors"] = size
    manifest.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(SaveError, match=r"does not fit the model: it lacks \['model.projector"):
        train(recipe_with(tmp_path, stage), resume=True)
