"""An accelerator's busy side: throughput, training steps, and what the device is; beside the suite of single answers.

In: models and how much of each. Out: :class:`DeviceResults`, back and forth between them and `device.json`.

    device.json
      format, date, flashsloth
      facts           before the first measurement and after the last one: driver, clocks, power, versions
      starts          model -> seconds to make it (recording included), of its first answer, of its second
      throughput      a list, see :class:`Throughput`
      agreement       a list, see :class:`Agreement`; or model -> why there is none, in `failures`
      training        a list, see :class:`DeviceTraining`

Every model has a process of its own. One that fails is reported, and the others are measured.

A training step trains what the stage trains in FlashSloth; of another model, its projector (stage 1), or that and its
language model (stage 2). Weights are float32 and computation is autocast to bfloat16, as in a training run; the
optimizer is AdamW. Inputs stay on the device: what is measured is the step.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flashsloth.benchmark.models import BASELINES, make_baseline
from flashsloth.benchmark.models.baseline import Baseline
from flashsloth.benchmark.results import make, read_stored
from flashsloth.benchmark.throughput import Agreement, Throughput
from flashsloth.benchmark.timing import LANGUAGE, PROJECTOR
from flashsloth.benchmark.training import FLASHSLOTH, FULL_ROWS, STAGE_NAMES, TEXT_TOKENS, TrainingJob, TrainingStep
from flashsloth.benchmark.worker_process import WorkerError, WorkerProcess
from flashsloth.benchmark.workload import ModelSpec, StandardJob
from flashsloth.errors import BenchmarkError
from flashsloth.files import write_whole
from flashsloth.planning.flops import check_counts
from flashsloth.planning.machine import peak_bytes, reset_peak
from flashsloth.version import __version__

WARM_UP_STEPS = 2
OWN_NAME = "flashsloth"
TRAINED_PARTS = {"alignment": (PROJECTOR,), "instruction": (PROJECTOR, LANGUAGE)}
"""Stage -> parts of another model that learn."""


@dataclass(frozen=True)
class DeviceTraining:
    """A training step that was measured, or why it was not.

    Attributes:
        subject: a name in `workload.py`.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", tuple(self.seconds))  # JSON has lists

    @property
    def samples_per_second(self) -> float:
        """By the median step."""
        return self.rows / sorted(self.seconds)[len(self.seconds) // 2]


def measure_training(
    name: str,
    stage: str,
    rows: int,
    text_tokens: int,
    steps: int,
    device: torch.device,
    *,
    size: str | None = OWN_NAME,
    baseline: Baseline | None = None,
) -> DeviceTraining:
    """Train for some steps.

    Args:
        name: "flashsloth", or a baseline's name.
        stage: one of `training_job.STAGE_NAMES`.
        rows: samples a step.
        text_tokens: of each.
        steps: that are timed.
        device: where.
        size: FlashSloth's, as `flashsloth plan` takes it; None for the small model.
        baseline: another size of the baseline.

    Raises:
        BenchmarkError: for what cannot be trained here.
    """
    if stage not in STAGE_NAMES:
        raise BenchmarkError(f"stage is {stage!r}; expected one of {', '.join(STAGE_NAMES)}")
    if name == OWN_NAME:
        model, batch = _own(stage, rows, text_tokens, size, device)
    elif name in BASELINES:
        model, batch = _baseline(BASELINES[name]() if baseline is None else baseline, stage, rows, text_tokens, device)
    else:
        raise BenchmarkError(f"there is no {name!r} to train; expected {OWN_NAME} or one of {', '.join(BASELINES)}")
    step = TrainingStep(model, batch, device)
    for _ in range(WARM_UP_STEPS):
        step()
    reset_peak(device)
    seconds = [step() for _ in range(steps)]
    return DeviceTraining(
        subject=name,
        stage=stage,
        rows=rows,
        positions=batch["input_ids"].shape[1],
        seconds=tuple(seconds),
        peak_bytes=peak_bytes(device),
        learning=sum(parameter.numel() for parameter in step.learning),
    )


def _own(
    stage: str, rows: int, text_tokens: int, size: str | None, device: torch.device
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """FlashSloth, ready to learn, and its batch."""
    job = TrainingJob(FLASHSLOTH, stage, size, None, rows, text_tokens, dtype="float32")
    model = job.make().to(device)
    return model, {name: tensor.to(device) for name, tensor in job.batch(model.config).items()}


def _baseline(
    baseline: Baseline, stage: str, rows: int, text_tokens: int, device: torch.device
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Another model, ready to learn, and its batch."""
    made = make_baseline(baseline, torch.float32, device, StandardJob(text_tokens=text_tokens))
    model = made.model.requires_grad_(False)
    for part in TRAINED_PARTS[stage]:
        for module in made.parts[part]:
            module.requires_grad_(True)
    return model.train(), made.training_inputs(rows)


FORMAT = 1
DEVICE_FILE = "device.json"
OWN = "flashsloth"
"""The kind of models that have a fast path."""
SHORT_ANSWER, LONG_ANSWER = 3, 64
"""Tokens: a choice or a word, and a sentence or two."""


@dataclass(frozen=True)
class DeviceSettings:
    """What is measured.

    Attributes:
        device: where.
        job: of single answers; its text is the throughput's too.
        pictures: of each throughput measurement.
        rows: answers at once, at most.
        answers: tokens of an answer, for one measurement each.
        stage_rows: training stage -> samples a step.
        steps: of training that are timed.
        size: FlashSloth's in training, as `flashsloth plan` takes it; None for the small model.
    """

    device: str
    job: StandardJob
    pictures: int = 256
    rows: int = 64
    answers: tuple[int, ...] = (SHORT_ANSWER, LONG_ANSWER)
    stage_rows: dict[str, int] = field(default_factory=lambda: dict(FULL_ROWS))
    steps: int = 10
    size: str | None = "flashsloth"

    def __post_init__(self) -> None:
        check_counts(self, pictures=1, rows=1, steps=1)


@dataclass
class DeviceResults:
    """Everything; see the module's docstring."""

    date: str
    flashsloth: str
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    starts: dict[str, dict[str, float]] = field(default_factory=dict)
    throughput: list[Throughput] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    training: list[DeviceTraining] = field(default_factory=list)
    format: int = FORMAT


def measure_device(
    specs: Sequence[ModelSpec],
    trained: Sequence[str],
    settings: DeviceSettings,
    start: Callable[[], WorkerProcess],
    say: Callable[[str], None],
) -> DeviceResults:
    """Measure throughput of `specs` and training steps of `trained`, in a process each."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    results = DeviceResults(date, __version__)
    results.facts["before"] = _asked(start, "facts")
    for spec in specs:
        say(f"{spec.title}: many pictures")
        _measure_throughput(spec, settings, start, results)
    for spec in specs:
        if spec.kind == OWN:
            say(f"{spec.title}: beside float32")
            _measure_agreement(spec, settings, start, results)
    for stage, rows in settings.stage_rows.items():
        for name in trained:
            say(f"{name}: training, {stage}")
            arguments = {"name": name, "stage": stage, "rows": rows, "text_tokens": TEXT_TOKENS[stage]}
            try:
                found = _asked(
                    start,
                    "train",
                    **arguments,
                    steps=settings.steps,
                    device=settings.device,
                    size=settings.size,
                )
                results.training.append(DeviceTraining(**found))
            except WorkerError as error:
                results.training.append(DeviceTraining(name, stage, rows, failure=str(error)))
    results.facts["after"] = _asked(start, "facts")
    return results


def save_device_results(results: DeviceResults, folder: Path) -> Path:
    """Write `device.json`."""
    path = folder / DEVICE_FILE
    write_whole(path, json.dumps(dataclasses.asdict(results), indent=1) + "\n")
    return path


def load_device_results(path: Path) -> DeviceResults:
    """Read `device.json`, or the folder that holds one.

    Raises:
        BenchmarkError: if there is none, or it holds something else.
    """
    stored = read_stored(path, DEVICE_FILE, FORMAT)
    lists = {"throughput": Throughput, "agreement": Agreement, "training": DeviceTraining}
    return make(DeviceResults, stored, **{name: partial(make, kind) for name, kind in lists.items()})


def _measure_throughput(
    spec: ModelSpec, settings: DeviceSettings, start: Callable[[], WorkerProcess], results: DeviceResults
) -> None:
    asked = {"spec": dataclasses.asdict(spec), "job": dataclasses.asdict(settings.job), "device": settings.device}
    done = 0
    try:
        with closing(start()) as worker:
            results.starts[spec.name] = worker.request("start", **asked)
            for new_tokens in settings.answers:
                arguments = {"new_tokens": new_tokens, "pictures": settings.pictures, "rows": settings.rows}
                results.throughput.append(Throughput(**worker.request("throughput", **arguments)))
                done += 1
    except WorkerError as error:
        results.throughput += [
            Throughput(spec.name, new_tokens, settings.pictures, settings.rows, failure=str(error))
            for new_tokens in settings.answers[done:]
        ]


def _measure_agreement(
    spec: ModelSpec, settings: DeviceSettings, start: Callable[[], WorkerProcess], results: DeviceResults
) -> None:
    asked = {"spec": dataclasses.asdict(spec), "job": dataclasses.asdict(settings.job), "device": settings.device}
    try:
        results.agreement.append(Agreement(**_asked(start, "agree", **asked)))
    except WorkerError as error:
        results.failures[spec.name] = str(error)


def _asked(start: Callable[[], WorkerProcess], do: str, **arguments: Any) -> Any:
    """One request's result, of a worker that is there for it alone."""
    with closing(start()) as worker:
        return worker.request(do, **arguments)
