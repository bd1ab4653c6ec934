"""Training steps on a device: FlashSloth's two stages, and the same stages of other models at the same batch.

In: which model, which stage, how many samples a step. Out: seconds a step and the most memory that was held.

A stage trains what it trains in FlashSloth; of another model, its projector (stage 1), or that and its language model
(stage 2). Weights are float32 and computation is autocast to bfloat16, as in a training run; the optimizer is AdamW.
Inputs stay on the device: what is measured is the step.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.benchmark.job import StandardJob
from flashsloth.benchmark.memory import peak_bytes, reset_peak
from flashsloth.benchmark.peers import PEERS, make_peer
from flashsloth.benchmark.peers.peer import Peer
from flashsloth.benchmark.stage_clock import LANGUAGE, PROJECTOR
from flashsloth.benchmark.training_job import FLASHSLOTH, STAGE_NAMES, TrainingJob

LEARNING_RATE = 1e-5
WARM_UP_STEPS = 2
OWN_NAME = "flashsloth"
TRAINED_PARTS = {"alignment": (PROJECTOR,), "instruction": (PROJECTOR, LANGUAGE)}
"""Stage -> parts of another model that learn."""


@dataclass(frozen=True)
class DeviceTraining:
    """A training step that was measured, or why it was not.

    Attributes:
        subject: a name in `subjects.py`.
        stage: one of `training_job.STAGE_NAMES`.
        rows: samples a step.
        positions: of each sample.
        seconds: of each step.
        peak_bytes: the most held, weights, gradients and optimizer included.
        learning: numbers that learn.
        failure: in one line, if there is nothing else.
    """

    subject: str
    stage: str
    rows: int
    positions: int = 0
    seconds: tuple[float, ...] = ()
    peak_bytes: int = 0
    learning: int = 0
    failure: str | None = None

    @property
    def samples_per_second(self) -> float:
        """By the median step."""
        return self.rows / sorted(self.seconds)[len(self.seconds) // 2]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)


def measure_training(
    name: str,
    stage: str,
    rows: int,
    text_tokens: int,
    steps: int,
    device: torch.device,
    *,
    size: str | None = OWN_NAME,
    peer: Peer | None = None,
) -> DeviceTraining:
    """Train for some steps.

    Args:
        name: "flashsloth", or a peer's name.
        stage: one of `training_job.STAGE_NAMES`.
        rows: samples a step.
        text_tokens: of each.
        steps: that are timed.
        device: where.
        size: FlashSloth's, as `flashsloth plan` takes it; None for the small model.
        peer: another size of the peer.

    Raises:
        BenchmarkError: for what cannot be trained here.
    """
    if stage not in STAGE_NAMES:
        raise BenchmarkError(f"stage is {stage!r}; expected one of {', '.join(STAGE_NAMES)}")
    if name == OWN_NAME:
        model, batch = _own(stage, rows, text_tokens, size, device)
    elif name in PEERS:
        model, batch = _peer(PEERS[name]() if peer is None else peer, stage, rows, text_tokens, device)
    else:
        raise BenchmarkError(f"there is no {name!r} to train; expected {OWN_NAME} or one of {', '.join(PEERS)}")
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, fused=True)
    for _ in range(WARM_UP_STEPS):
        _step(model, batch, optimizer, device)
    reset_peak(device)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        _step(model, batch, optimizer, device)
        seconds.append(time.perf_counter() - start)
    return DeviceTraining(
        subject=name,
        stage=stage,
        rows=rows,
        positions=batch["input_ids"].shape[1],
        seconds=tuple(seconds),
        peak_bytes=peak_bytes(device),
        learning=sum(parameter.numel() for parameter in learning),
    )


def _own(
    stage: str, rows: int, text_tokens: int, size: str | None, device: torch.device
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """FlashSloth, ready to learn, and its batch."""
    job = TrainingJob(FLASHSLOTH, stage, size, None, rows, text_tokens, dtype="float32")
    model = job.make().to(device)
    return model, {name: tensor.to(device) for name, tensor in job.batch(model.config).items()}


def _peer(
    peer: Peer, stage: str, rows: int, text_tokens: int, device: torch.device
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Another model, ready to learn, and its batch."""
    subject = make_peer(peer, torch.float32, device, StandardJob(text_tokens=text_tokens))
    model = subject.model.requires_grad_(False)
    for part in TRAINED_PARTS[stage]:
        for module in subject.parts[part]:
            module.requires_grad_(True)
    return model.train(), subject.training_inputs(rows)


def _step(
    model: nn.Module, batch: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    """Forward, backward, and the optimizer; done when it returns."""
    with _autocast(device):
        loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _autocast(device: torch.device) -> AbstractContextManager:
    return torch.autocast(device.type, dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


__all__ = ["DeviceTraining", "measure_training"]
