"""A run that was stopped, by whatever means, learns what the run that was not stopped learns: to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file, save_file
from transformers.core_model_loading import WeightRenaming

from flashsloth.training import run as run_module
from flashsloth.training.checkpoints import MANIFEST, SaveError, last_whole
from flashsloth.training.data import Joined
from flashsloth.training.interruptions import TrainingInterrupted
from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import RunExistsError, train
from flashsloth.training.trainer import StageTrainer
from tests.training import tiny_runs

SIGTERM_EXIT, STOPPED = 143, "go on with --resume"
STOP_AT, KILL_AT, STEPS = 5, 21, 32
"""It is killed in its second epoch or later, and goes on into another."""


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
    run = tiny_runs.start(other, processes=processes, pause_after=STOP_AT)
    run.wait_for_step(STOP_AT)
    run.signal(signal.SIGTERM, ranks=(processes - 1,))  # one of them hears it, all stop
    assert run.end() == [SIGTERM_EXIT] * processes, run.said()
    assert STOPPED in run.said()
    run = tiny_runs.start(other, "--resume", processes=processes, pause_after=KILL_AT)
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
    for stage in (tiny_runs.ALIGNMENT, tiny_runs.INSTRUCTION, tiny_runs.INSTRUCTION_HD)
    for processes in (1, 2)
    for workers in (0, 4)
]


@pytest.mark.parametrize(
    ("stage", "processes", "workers", "batch"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in EVERY)],
    ids=lambda value: folder_of(value) if isinstance(value, str) else str(value),
)
def test_losses_are_equal_to_the_last_bit(tmp_path: Path, stage: str, processes: int, workers: int, batch: int) -> None:
    changes = {"workers": workers, "batch_size": batch, "steps": STEPS, "save_every": 6}
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


SHORT = {"batch_size": 2, "steps": 8, "save_every": 100}


EVALUATED = tiny_runs.with_batch(
    tiny_runs.ALIGNMENT.replace("count: 30", "count: 8"), **{**SHORT, "log_every": 3, "eval_every": 4}
).replace("data:", "eval_data: [{world: 1, count: 3, split: test, text: caption}], data:")
"""Four steps an epoch: 4 and 8 are the ends of one."""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is logged where nothing stops the run."""
    folder = tmp_path_factory.mktemp("evaluated")
    train(recipe_with(folder, EVALUATED))
    return losses_and_evaluations(folder)


def losses_and_evaluations(folder: Path) -> list[dict[str, Any]]:
    names = ("loss", "eval_loss", "eval_right", "learning_rate", "grad_norm", "step")
    return [
        {name: entry[name] for name in names if name in entry}
        for entry in load_log(folder)
        if "loss" in entry or "eval_loss" in entry
    ]


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_stopping_puts_an_evaluation_off_and_log_sums_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluated: list[dict[str, Any]], step: int
) -> None:
    with monkeypatch.context() as patched:
        tiny_runs.stop_in(patched, step)
        with pytest.raises(TrainingInterrupted, match=f"after step {step} of 8"):
            train(recipe_with(tmp_path, EVALUATED))
    train(recipe_with(tmp_path, EVALUATED), resume=True)
    assert losses_and_evaluations(tmp_path) == evaluated
    assert [entry["step"] for entry in evaluated] == [3, 4, 6, 8]


def load_log(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "out" / "0-alignment" / "log.json").read_text(encoding="utf-8"))


def test_samples_that_were_learned_from_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    take = Joined.__getitem__
    monkeypatch.setattr(Joined, "__getitem__", lambda self, index: (read.append(index), take(self, index))[1])
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, **SHORT)
    with monkeypatch.context() as patched:
        tiny_runs.stop_in(patched, 6)
        with pytest.raises(TrainingInterrupted):
            train(recipe_with(tmp_path, stage))
    learned = read[:12]  # two samples a step
    assert len(read) == len(learned)
    read.clear()
    train(recipe_with(tmp_path, stage), resume=True)
    assert len(read) == 2 * 2
    assert not set(read) & set(learned)


def test_a_second_call_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = tuple(tiny_runs.with_batch(stage, **SHORT) for stage in (tiny_runs.ALIGNMENT, tiny_runs.INSTRUCTION))
    recipe = recipe_with(tmp_path, *stages)
    with monkeypatch.context() as patched:
        tiny_runs.stop_in(patched, 6)
        with pytest.raises(TrainingInterrupted):
            train(recipe)
    with pytest.raises(RunExistsError, match=r"stopped in 0-alignment: go on from step 6 with --resume, start another"):
        train(recipe)
    with monkeypatch.context() as patched:
        tiny_runs.stop_in(patched, 1)
        patched.setattr("flashsloth.training.run.set_seed", lambda seed: None)
        patched.setattr("flashsloth.training.stage_training.set_seed", lambda seed: None)
        with pytest.raises(TrainingInterrupted):
            train(recipe, resume=True)  # the first stage to its end, and one step of the second
    with pytest.raises(RunExistsError, match=r"stopped in 1-instruction: go on from step 1"):
        train(recipe)


def test_a_checkpoint_of_other_weights_or_another_optimizer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, **SHORT)
    with monkeypatch.context() as patched:
        tiny_runs.stop_in(patched, 2)
        with pytest.raises(TrainingInterrupted):
            train(recipe_with(tmp_path, stage))
    checkpoint = last_whole(tmp_path / "out" / "0-alignment" / "steps")
    assert checkpoint is not None
    with monkeypatch.context() as patched:
        patched.setattr("flashsloth.training.optimizer._is_table", lambda module: True)  # other groups of parameters
        with pytest.raises(SaveError, match=r"checkpoint-2 holds the state of another optimizer than this version"):
            train(recipe_with(tmp_path, stage), resume=True)
    weights = load_file(checkpoint / "model.safetensors")
    renamed = {name.replace("projector", "projektor"): values for name, values in weights.items()}
    save_file(renamed, checkpoint / "model.safetensors", metadata={"format": "pt"})
    manifest = checkpoint / MANIFEST
    size = (checkpoint / "model.safetensors").stat().st_size
    said = json.loads(manifest.read_text(encoding="utf-8"))
    said["files"]["model.safetensors"] = size
    manifest.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(SaveError, match=r"does not fit the model: it lacks \['model.projector"):
        train(recipe_with(tmp_path, stage), resume=True)


def test_weights_are_saved_under_the_models_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that came from files of another layout is saved in that layout; its checkpoints must not be."""

    def renamed(*arguments: Any, **options: Any) -> Any:
        model, processor = start_model(*arguments, **options)
        model._weight_conversions = [WeightRenaming("connector", "model.projector")]
        return model, processor

    start_model = run_module.start_model
    monkeypatch.setattr(run_module, "start_model", renamed)
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, **SHORT)
    train(recipe_with(tmp_path / "whole", stage))
    with monkeypatch.context() as patched:
        tiny_runs.stop_in(patched, 3)
        with pytest.raises(TrainingInterrupted):
            train(recipe_with(tmp_path / "other", stage))
    train(recipe_with(tmp_path / "other", stage), resume=True)
    runs = [tiny_runs.losses(tmp_path / name / "recipe.yaml", "0-alignment") for name in ("whole", "other")]
    assert runs[0] == runs[1]
    made = load_file(tmp_path / "other" / "out" / "0-alignment" / "model.safetensors")
    assert any(name.startswith("connector") for name in made)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """The same samples in the same steps; without dropout, the same losses but for the order of sums."""
    plain = ("--set", "model.config.sap_dropout=0.0")
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=4, steps=12)
    whole, other = (tiny_runs.write_recipe(tmp_path / name, stage) for name in ("whole", "other"))
    reference, run = tiny_runs.start(whole, *plain), tiny_runs.start(other, *plain, processes=2, pause_after=4)
    run.wait_for_step(4)
    run.signal(signal.SIGTERM)
    assert run.end() == [SIGTERM_EXIT] * 2, run.said()
    assert reference.end() == [0], reference.said()
    run = tiny_runs.start(other, "--resume", *plain)
    assert run.end() == [0], run.said()
    assert "processes: was 2, is 1; the run goes on, but perhaps not bit for bit" in run.said()
    expected, found = (tiny_runs.losses(path, "0-alignment") for path in (whole, other))
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_workers_leave_stopping_to_the_process_they_work_for(tmp_path: Path, number: int, code: int) -> None:
    """Schedulers and terminals signal every process of a job."""
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, workers=2)
    run = tiny_runs.start(tiny_runs.write_recipe(tmp_path, stage), pause_after=3)
    run.wait_for_step(3)
    workers = psutil.Process(run.processes[0].pid).children()
    assert len(workers) >= 2
    for worker in workers:
        worker.send_signal(number)
    run.signal(number)
    assert run.end() == [code], run.said()
    assert "Traceback" not in run.said()
    assert STOPPED in run.said()


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = StageTrainer.training_step

    def asked_twice(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return learn(self, *arguments, **options)

    monkeypatch.setattr(StageTrainer, "training_step", asked_twice)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe_with(tmp_path, tiny_runs.with_batch(tiny_runs.ALIGNMENT, **SHORT)))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_command_says_what_it_found_and_refuses_another_recipe(tmp_path: Path) -> None:
    recipe = tiny_runs.write_recipe(tmp_path, tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=30))
    run = tiny_runs.start(recipe, pause_after=2)
    run.wait_for_step(2)
    run.signal(signal.SIGTERM)
    assert run.end() == [SIGTERM_EXIT], run.said()
    again = tiny_runs.start(recipe)
    assert again.end() == [2]
    assert "holds a run that stopped in 0-alignment: go on from step " in again.said()
    changed = tiny_runs.start(recipe, "--resume", "--set", "stages.0.learning_rate=1e-4", "--set", "seed=9")
    assert changed.end() == [2]
    assert "cannot go on with seed: the run has 0, found 9: steps would learn from other samples" in changed.said()
    assert "Traceback" not in again.said() + changed.said()


ELASTIC = """
import os, signal, sys
from flashsloth.cli.app import main
from flashsloth.training.trainer import StageTrainer
learn = StageTrainer.training_step
def dying(self, *arguments, **options):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and self.state.global_step == 7 and self.args.process_index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(self, *arguments, **options)
StageTrainer.training_step = dying
sys.exit(main(["train", sys.argv[1], "--resume"]))
"""


ONE_NODE = [["--standalone", "--nproc-per-node", "2"]]
TWO_NODES = [["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [ONE_NODE, TWO_NODES], ids=["one node", "two nodes"])
def test_torchrun_starts_again_where_a_process_died(tmp_path: Path, nodes: list[list[str]]) -> None:
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=4, steps=STEPS)
    whole, other = (tiny_runs.write_recipe(tmp_path / name, stage) for name in ("whole", "other"))
    reference = tiny_runs.start(whole, processes=2)
    assert reference.end() == [0, 0], reference.said()
    script = tmp_path / "dying.py"
    script.write_text(ELASTIC, encoding="utf-8")
    meeting = ["--rdzv-endpoint", f"127.0.0.1:{tiny_runs.free_port()}"] if len(nodes) > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if len(nodes) > 1:
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    agents = []
    for number, layout in enumerate(nodes):
        command = [sys.executable, "-m", "torch.distributed.run", *layout, *meeting, "--max-restarts", "1"]
        with (tmp_path / f"node-{number}.txt").open("w") as file:
            agents.append(subprocess.Popen([*command, str(script), str(other)], stderr=file, env=environment))
    ends = [agent.wait(tiny_runs.SECONDS) for agent in agents]
    said = "".join((tmp_path / f"node-{number}.txt").read_text(encoding="utf-8") for number in range(len(nodes)))
    assert ends == [0] * len(nodes), said
    assert "checkpoint-5" in said
    assert_same_run(whole, other, tiny_runs.ALIGNMENT)
