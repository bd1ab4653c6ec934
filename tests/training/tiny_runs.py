"""Tiny runs in processes of their own, which a test may signal and kill; started from a server that has imported all.

Legend: a run has one process or two, which meet over gloo as those of torchrun do.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import is_deepspeed_available
from forked import Process

from flashsloth.training.trainer import StageTrainer

NEEDS_DEEPSPEED = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_deepspeed_available(), reason="DeepSpeed is not installed (pip install deepspeed ninja)"),
]
SECONDS = 600.0
"""No run takes as long, unless it hangs."""
POLL_SECONDS = 0.005
GRID = "{grid}"
MODEL = """
model:
  tokenizer: world
  config:
    vision_config: {model_type: siglip_vision_model, image_size: 24, patch_size: 4, hidden_size: 16,
                    intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
    text_config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2,
                  num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 1024,
                  tie_word_embeddings: true}
    vision_feature_layer: -1
    image_grid: {grid}
    num_query_tokens: 2
    query_size: 8
    embq_layer: 1
    embq_num_heads: 2
    lm_head_bias: false
    tie_word_embeddings: true
"""
ALIGNMENT = "stage: alignment, data: [{world: 1, count: 30, text: caption}]"
INSTRUCTION = (
    "stage: instruction, template: chat, learning_rate: 1e-3, data: [{world: 1, count: 20, most_turns: 2}, "
    "{world: 1, count: 9, seed: 5, most_turns: 2, independent: true}]"
)
INSTRUCTION_HD = INSTRUCTION.replace("instruction", "instruction_hd")
"""Thirty or so samples: at four a step, an epoch is seven steps and a rest, so runs go through several epochs."""
BATCH = "batch_size: 4, micro_batch_size: 1, workers: 0, log_every: 1, save_every: 5, steps: 60"


def write_recipe(folder: Path, *stages: str, head: str = "") -> Path:
    """A recipe of these stages, each `key: value, ...`; what comes first in them counts. HD if one of them is HD's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    lines = "\n".join(f"  - {{{stage}}}" for stage in stages)
    model = MODEL.replace(GRID, "2" if "instruction_hd" in lines else "1")
    path.write_text(f"output: {folder / 'out'}\nmatrix_rate: 1e9\n{head}{model}stages:\n{lines}\n", encoding="utf-8")
    return path


def with_batch(stage: str, **changes: Any) -> str:
    """A stage with the usual batch, and changes."""
    values = dict(part.split(": ") for part in BATCH.split(", "))
    values.update({key: str(value).lower() for key, value in changes.items()})
    return stage + "".join(f", {key}: {value}" for key, value in values.items())


@dataclass
class Run:
    """A run under way: its processes, and the file that each writes what it says into."""

    processes: list[Process]
    files: list[Path]

    def said(self, rank: int = 0) -> str:
        """Everything on stdout and stderr so far."""
        return self.files[rank].read_text(encoding="utf-8") if self.files[rank].exists() else ""

    def step(self) -> int:
        """The last step that was logged."""
        return max([0, *(int(step) for step in re.findall(r"\d-\w+ (\d+)/\d+ ", self.said()))])

    def wait_for_step(self, step: int) -> None:
        """Until that one is logged, or the run has ended."""
        end = time.monotonic() + SECONDS
        while self.step() < step and self.is_alive():
            assert time.monotonic() < end, self.said()
            time.sleep(POLL_SECONDS)

    def is_alive(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def signal(self, number: int, ranks: tuple[int, ...] | None = None) -> None:
        """Send a signal to the processes of these ranks; without, to all."""
        for rank, process in enumerate(self.processes):
            if process.is_alive() and (ranks is None or rank in ranks):
                os.kill(process.pid, number)

    def end(self) -> list[int]:
        """Wait for the end; returns the exit codes, negative for a signal's."""
        for process in self.processes:
            if not process.join(SECONDS):
                self.signal(9)
                raise AssertionError(f"it hangs: {self.said()}")
        return [process.exitcode for process in self.processes]


def start(recipe: Path, *arguments: str, processes: int = 1, hook: Any = None, pause_after: int | None = None) -> Run:
    """Run `flashsloth train` on a recipe.

    Args:
        recipe: the file.
        arguments: of the command.
        processes: how many.
        hook: a function of a module that the processes can import, called with the rank before the command.
        pause_after: a step after which the last process, and so all, wait for a signal: on a busy machine a run may be
            done before a test that waits for its step can send one.
    """
    port = free_port()
    number = len(list(recipe.parent.glob("said-*")))
    files = [recipe.parent / f"said-{number + rank}.txt" for rank in range(processes)]
    run = Run([], files)
    for rank, file in enumerate(files):
        file.touch()
        settings = (rank, processes, port, ["train", str(recipe), *arguments], file, hook, pause_after)
        run.processes.append(Process(_train, *settings))
    return run


def losses(recipe: Path, stage: str) -> list[tuple[int, float]]:
    """Step and loss of every line of a stage's log."""
    log = json.loads((recipe.parent / "out" / stage / "log.json").read_text(encoding="utf-8"))
    return [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]


def _pause_after(step: int) -> None:
    """Let this process's training wait in the step after that one."""
    from flashsloth.training.trainer import StageTrainer

    learn = StageTrainer.training_step

    def waiting(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        while self.state.global_step == step and not self.stop_request.is_asked:
            time.sleep(POLL_SECONDS)
        return learn(self, *arguments, **options)

    StageTrainer.training_step = waiting  # type: ignore[method-assign]


def _train(
    rank: int, world: int, port: int, arguments: list[str], file: Path, hook: Any, pause_after: int | None
) -> None:
    import torch

    from flashsloth.cli.app import main

    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["COLUMNS"] = "400"
    if world > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    if hook is not None:
        hook(rank)
    if pause_after is not None and rank == world - 1:
        _pause_after(pause_after)
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as a command's process ends; what the test's libraries left behind is none of its business


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_in(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ask a run in this process to stop in a step."""
    learn = StageTrainer.training_step

    def asked(self: StageTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return learn(self, *arguments, **options)

    monkeypatch.setattr(StageTrainer, "training_step", asked)
