"""Training memory and time of FlashSloth beside itself with all its visual tokens: measured, then counted.

In: a stage, a size, a depth, a batch. Out: :class:`TrainingResults`, which `training_report.py` shows.

    measured    at true widths and a depth that this machine has memory for, each model in a process of its own:
                seconds a sample, the process's resident set, and the bytes of torch's tensors
    counted     at full depth and a training run's micro-batch: no extrapolation from the measured, but the same model
                code on tensors without numbers; nothing is timed

The rival has the same encoder, projector and language model, but nothing in SAP's place, and neither query tokens nor
EmbQ: every patch is a visual token, as in LLaVA-1.5 and Imp.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flashsloth.benchmark.results import make, read_stored
from flashsloth.benchmark.timing import CpuContention, wait_for
from flashsloth.benchmark.worker_process import WorkerProcess
from flashsloth.errors import BenchmarkError
from flashsloth.inference.load import DTYPES
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loss import IGNORED_LABEL
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.prompt_layout import PromptLayout
from flashsloth.planning.flops import COLOR_CHANNELS, check_counts
from flashsloth.planning.machine import cpu_name, peak_bytes, reset_peak
from flashsloth.planning.memory import LiveMemory
from flashsloth.planning.model_shape import find_model
from flashsloth.training.stages import STAGES, freeze_all_but
from flashsloth.training.step_memory import MIXED, MicroBatch, step_bytes

RESULTS_NAME = "training.json"
FLASHSLOTH, ALL_TOKENS = "FlashSloth", "all visual tokens"
MODELS = (FLASHSLOTH, ALL_TOKENS)
STAGE_NAMES = ("alignment", "instruction")
LEFT_OUT = {"sap", "query_tokens", "embq"}
"""Parts that the rival does not have."""
EVERY_PATCH = 1
"""The side of windows that hold one patch."""


@dataclass(frozen=True)
class TrainingJob:
    """One measurement.

    Attributes:
        subject: one of :data:`MODELS`.
        stage: one of :data:`STAGE_NAMES`.
        model: the size: a name as `flashsloth plan` takes it; None for the small model.
        layers: of each tower; None for all.
        rows: samples a step.
        text_tokens: of each.
        dtype: of weights, gradients, optimizer and activations alike.
        activation_checkpointing: whether layers are run again in backward.
    """

    subject: str
    stage: str
    model: str | None
    layers: int | None
    rows: int
    text_tokens: int
    dtype: str = "bfloat16"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("subject", MODELS), ("stage", STAGE_NAMES), ("dtype", tuple(DTYPES))):
            if getattr(self, name) not in choices:
                raise BenchmarkError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        check_counts(self, rows=1, text_tokens=1, **({} if self.layers is None else {"layers": 1}))

    @property
    def has_queries(self) -> bool:
        """Whether query tokens stand after the text."""
        return self.subject == FLASHSLOTH and STAGES[self.stage].template != "plain"

    @property
    def trains(self) -> tuple[str, ...]:
        """The stage's parts, as far as the model has them."""
        parts = STAGES[self.stage].trains
        return parts if self.subject == FLASHSLOTH else tuple(part for part in parts if part not in LEFT_OUT)

    @property
    def micro_batch(self) -> MicroBatch:
        """What a step sees."""
        return MicroBatch(self.rows, self.text_tokens, pictures=1, has_queries=self.has_queries)

    def config(self) -> FlashSlothConfig:
        """The model's, with so many layers."""
        config = find_model(self.model).config
        fields = config.to_dict()
        if self.layers is not None:
            fields["text_config"]["num_hidden_layers"] = self.layers
            fields["text_config"].pop("layer_types", None)
            fields["vision_config"]["num_hidden_layers"] = self.layers - min(0, config.vision_feature_layer + 1)
            fields["embq_layer"] = min(config.embq_layer, self.layers // 2)
        if self.subject == ALL_TOKENS:
            fields["pool_size"] = EVERY_PATCH
        return FlashSlothConfig.from_dict(fields)

    def make(self) -> FlashSlothForConditionalGeneration:
        """The model, random, ready to learn."""
        from flashsloth.benchmark.models.random_weights import make_random

        config, dtype = self.config(), DTYPES[self.dtype]
        made = make_random(
            lambda: FlashSlothForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=dtype),
            torch.device("cpu"),
            seed=0,
        )
        if self.subject == ALL_TOKENS:
            made.model.spatial_attention_pooling = nn.Identity()
        freeze_all_but(made, self.trains)
        if self.activation_checkpointing:
            made.gradient_checkpointing_enable({"use_reentrant": False})
        return made.train()

    def batch(self, config: FlashSlothConfig) -> dict[str, torch.Tensor]:
        """Inputs of a step: one picture a row, then text, all of it supervised, then the query tokens."""
        row = PromptLayout(config)
        row.add_picture(config.num_image_tokens)
        row.add_text([config.anchor_token_id] * self.micro_batch.text_tokens)
        if self.has_queries:
            row.add_queries(config.num_image_tokens)
        inputs = {name: torch.tensor([values] * self.rows) for name, values in row.lists().items()}
        is_text = inputs["input_ids"] == config.anchor_token_id
        inputs["labels"] = torch.where(is_text, inputs["input_ids"], IGNORED_LABEL)
        side = config.vision_config.image_size
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(self.rows, config.num_views, COLOR_CHANNELS, side, side, generator=generator)
        return {**inputs, "pixel_values": pixels.to(DTYPES[self.dtype])}


TEXT_TOKENS = {"alignment": 32, "instruction": 310}
"""Stage -> text of a sample: about a caption's; what makes 400 positions of FlashSloth's stage 2."""
FULL_ROWS = {"alignment": 32, "instruction": 16}
"""Stage -> samples a device has at a time in the published runs on eight devices."""
ADAMW_BYTES = 8
LEARNING_RATE = 1e-5
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Measured:
    """One model in one stage: what was asked, and what :func:`measure_job` found."""

    job: dict[str, Any]
    found: dict[str, Any]

    @property
    def seconds_per_sample(self) -> float:
        """Median."""
        return statistics.median(self.found["seconds"]) / self.job["rows"]

    @property
    def tensor_bytes(self) -> int:
        """Weights, optimizer, and the most that a step holds beside them, gradients and all."""
        return self.found["weight_bytes"] + self.found["optimizer_bytes"] + self.found["step_bytes"]


@dataclass(frozen=True)
class Counted:
    """One model in one stage at full depth: bytes by part, with float32 weights and bfloat16 autocast."""

    subject: str
    stage: str
    rows: int
    positions: int
    activation_checkpointing: bool
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class TrainingResults:
    """What was found, on what."""

    machine: dict[str, Any]
    measured: list[Measured]
    counted: list[Counted]


def run_training_bench(
    model: str | None, layers: int | None, rows: int, steps: int, threads: int | None, say: Callable[[str], None]
) -> TrainingResults:
    """Measure both models in both stages, one process after the other, and count them at full depth.

    Args:
        model: the size, as `flashsloth plan` takes it; None for the small model.
        layers: of each tower, of what is measured; None for all.
        rows: samples a step, of what is measured.
        steps: that are timed.
        threads: of each process; None for as many as torch takes.
        say: told what is done.

    Raises:
        BenchmarkError: for a size that cannot be, or a process that failed.
    """
    if steps < 1:
        raise BenchmarkError(f"steps is {steps}; expected at least 1")
    jobs = [
        TrainingJob(subject, stage, model, layers, rows, TEXT_TOKENS[stage])
        for stage in STAGE_NAMES
        for subject in MODELS
    ]
    measured = []
    for job in jobs:
        say(f"training {job.subject}, {job.stage}")
        asked = dataclasses.asdict(job)
        with WorkerProcess(threads) as worker:
            measured.append(Measured(asked, worker.request("measure", job=asked, steps=steps)))
    counted = []
    for job in jobs:
        for again in (False, True):
            say(f"counting {job.subject}, {job.stage}")
            counted.append(count(job, again))
    return TrainingResults(_machine(measured), measured, counted)


def measure_job(job: TrainingJob, steps: int, contention: CpuContention) -> dict[str, Any]:
    """Train for one step that warms up, `steps` that are timed, and one whose tensors are counted.

    Returns:
        Seconds of each step, and bytes held: by the process (resident set), and by torch's tensors, each at most.
        Memory that building the model took is not counted, what the weights take is.
    """
    device, model = torch.device("cpu"), job.make()
    batch = job.batch(model.config)
    step = TrainingStep(model, batch, device)
    reset_peak(device)
    step()
    since, seconds = contention.read(), [step() for _ in range(steps)]
    others, resident = contention.others_share(since), peak_bytes(device)
    states = [value for kept in step.optimizer.state.values() for value in kept.values() if torch.is_tensor(value)]
    memory = LiveMemory(model)
    memory.leave_out((*states, *batch.values()))
    with memory:
        step()
    return {
        "seconds": seconds,
        "others_share": others,
        "resident_bytes": resident,
        "weight_bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "gradient_bytes": sum(parameter.nbytes for parameter in step.learning),
        "optimizer_bytes": sum(value.nbytes for value in states),
        "step_bytes": memory.peak,
        "positions": batch["input_ids"].shape[1],
        "parameters": model.num_parameters(),
        "learning": sum(parameter.numel() for parameter in step.learning),
        "threads": torch.get_num_threads(),
    }


class TrainingStep:
    """Forward, backward, and AdamW, again and again over the same batch; on an accelerator autocast to bfloat16."""

    def __init__(self, model: nn.Module, batch: dict[str, torch.Tensor], device: torch.device) -> None:
        self._model, self._batch, self._device = model, batch, device
        self.learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=LEARNING_RATE, fused=True)

    def __call__(self) -> float:
        """Seconds of a step; it is done when it returns."""
        start = time.perf_counter()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            loss = self._model(**self._batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        wait_for(self._device)
        return time.perf_counter() - start


def count(job: TrainingJob, activation_checkpointing: bool) -> Counted:
    """A job's memory at full depth and a training run's micro-batch."""
    whole = dataclasses.replace(job, layers=None, rows=FULL_ROWS[job.stage])
    config = whole.config()
    step = step_bytes(
        config, whole.trains, whole.micro_batch, computing=MIXED, activation_checkpointing=activation_checkpointing
    )
    return Counted(
        subject=job.subject,
        stage=job.stage,
        rows=whole.rows,
        positions=whole.micro_batch.positions(config),
        activation_checkpointing=activation_checkpointing,
        weights=step.weights,
        gradients=step.learning * FLOAT32_BYTES,
        optimizer=step.learning * ADAMW_BYTES,
        activations=step.activations,
    )


def load_training_results(path: Path) -> TrainingResults:
    """An earlier run.

    Raises:
        BenchmarkError: if it is none.
    """
    stored = read_stored(path, RESULTS_NAME)
    return make(TrainingResults, stored, measured=partial(make, Measured), counted=partial(make, Counted))


def _machine(measured: list[Measured]) -> dict[str, Any]:
    share = max(one.found["others_share"] for one in measured)
    return {
        "name": cpu_name(),
        "system": platform.platform(),
        "threads": measured[0].found["threads"],
        "torch": torch.__version__,
        "disturbed": f"others took up to {share:.0%} of the machine",
    }
