"""What an answer takes on a machine, before anything is loaded: memory, time to the first token, tokens a second.

In: a configuration, a machine's limits (`machine.py`), a precision, and what is asked. Out: a :class:`Plan`: each part
of an answer with its limit, how long it is expected to take and what that rests on; and the memory, by part.

    work (`cost.py`, `activations.py`)  x  limits (`machine.py`)  x  shares reached of them (`efficiency.py`)

Where nobody has measured what is reached of a device's limits, only the limits are told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from flashsloth.benchmark.activations import activation_bytes
from flashsloth.benchmark.cost import Cost, Workload
from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.benchmark.job import NEW_TOKENS, TEXT_TOKENS
from flashsloth.benchmark.machine import Machine
from flashsloth.benchmark.stages import Clock, Stage, kept_positions, looking, reading, reading_on, writing
from flashsloth.benchmark.weights import Precision
from flashsloth.inference.kv_cache import round_columns
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.speed import QUANTIZATIONS
from flashsloth.speed.speed_up import WORTH_PACKING

PROCESS_BYTES = {"cpu": 415_000_000}
"""Kind of device -> memory of a process that answers, without the model: Python, torch, transformers, their tables.
It is what a process holds that has answered with the small model, less that model. An accelerator's has none of it.
"""


@dataclass(frozen=True)
class Memory:
    """Bytes by part, at the moment when most is held.

    Attributes:
        weights: all parameters; a head that is tied to the embeddings is packed apart from them on a processor.
        keys_and_values: of all prompts and answers, with the room they grow into.
        pictures: features, visual tokens, keys and values that are kept for more questions.
        activations: what one pass holds for a moment.
        process: everything that is not the model.
    """

    weights: int
    keys_and_values: int
    pictures: int
    activations: int
    process: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Plan:
    """What an answer takes.

    Attributes:
        machine: where.
        precision: what numbers are stored as.
        work: what is asked.
        parameters: part of the model -> numbers.
        positions: of each prompt.
        visual_tokens: of each prompt.
        memory: bytes by part.
        stages: up to the first token, in order.
        step: each token after it.
        next_question: the prefill of another question about pictures that are kept; None without pictures.
    """

    machine: Machine
    precision: Precision
    work: Workload
    parameters: dict[str, int]
    positions: int
    visual_tokens: int
    memory: Memory
    stages: tuple[Stage, ...]
    step: Stage
    next_question: Stage | None

    @property
    def fits(self) -> bool | None:
        """Whether the machine has the memory; None where that is not known (0)."""
        return self.memory.total <= self.machine.memory_bytes if self.machine.memory_bytes else None

    @property
    def first_token_seconds(self) -> float | None:
        """From a picture in memory to the first token of every answer."""
        return _sum(stage.seconds for stage in self.stages)

    @property
    def first_token_limit(self) -> float:
        """The least it can take."""
        return sum(stage.limit_seconds for stage in self.stages)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all answers a second, once they are being written."""
        return None if self.step.seconds is None else self.work.batch / self.step.seconds

    @property
    def tokens_per_second_limit(self) -> float:
        """The most there can be."""
        return self.work.batch / self.step.limit_seconds

    @property
    def response_seconds(self) -> float | None:
        """From a picture in memory to the last token."""
        later = None if self.step.seconds is None else self.step.seconds * (self.work.new_tokens - 1)
        return _sum((self.first_token_seconds, later))

    @property
    def response_limit(self) -> float:
        """The least it can take."""
        return self.first_token_limit + self.step.limit_seconds * (self.work.new_tokens - 1)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        totals = ("first_token_seconds", "first_token_limit", "tokens_per_second", "tokens_per_second_limit")
        return {
            "machine": self.machine.to_dict(),
            "dtype": self.precision.computed,
            "quantize": self.precision.quantize,
            **dataclasses.asdict(self.work),
            "parameters": self.parameters,
            "positions": self.positions,
            "visual_tokens": self.visual_tokens,
            "memory_bytes": {**dataclasses.asdict(self.memory), "total": self.memory.total},
            "fits": self.fits,
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "step": dataclasses.asdict(self.step),
            "next_question": None if self.next_question is None else dataclasses.asdict(self.next_question),
            **{name: getattr(self, name) for name in (*totals, "response_seconds", "response_limit")},
        }


def plan(
    config: FlashSlothConfig,
    *,
    machine: Machine,
    dtype: torch.dtype,
    quantize: str | None = None,
    pictures: int = 1,
    text_tokens: int = TEXT_TOKENS,
    new_tokens: int = NEW_TOKENS,
    batch: int = 1,
) -> Plan:
    """Work out what an answer takes.

    Args:
        config: of the model.
        machine: its limits, measured with `dtype`. Memory of 0 bytes means that it is not known.
        dtype: what is computed in.
        quantize: "int8" or "int4" for the language model's weights, as in `load`.
        pictures, text_tokens, new_tokens, batch: see :class:`Workload`.

    Raises:
        BenchmarkError: for what cannot be run, or was not measured.
    """
    work, precision = Workload(pictures, text_tokens, new_tokens, batch), Precision(dtype, quantize)
    return make_plan(check(config, precision, work, machine.device), precision, work, machine)


def check(config: FlashSlothConfig, precision: Precision, work: Workload, device: str) -> Cost:
    """What :func:`make_plan` needs, and all that can be wrong before a machine is measured.

    Raises:
        BenchmarkError: for what cannot be run or counted.
    """
    if precision.quantize is not None and precision.quantize not in QUANTIZATIONS:
        raise BenchmarkError(f"quantize is {precision.quantize!r}; expected one of {', '.join(QUANTIZATIONS)}, or none")
    if precision.quantize is not None and torch.device(device).type != "cpu":
        raise BenchmarkError(f"quantize={precision.quantize!r} works on cpu so far, not on {device}")
    cost = Cost.of(config)
    context = getattr(config.text_config, "max_position_embeddings", None)
    positions = cost.positions(work)
    if context is not None and positions + work.new_tokens > context:
        visual = work.pictures * config.num_image_tokens
        raise BenchmarkError(
            f"the prompt has {positions:,} tokens ({visual:,} of them for pictures), the answer {work.new_tokens:,}, "
            f"and this model's context is {context:,}: ask for fewer pictures, less text or a shorter answer"
        )
    return cost


def make_plan(cost: Cost, precision: Precision, work: Workload, machine: Machine) -> Plan:
    """As :func:`plan`, of what :func:`check` let through."""
    if precision.computed not in machine.matrix_rate:
        raise BenchmarkError(
            f"{machine.name} was measured in {', '.join(machine.matrix_rate)}, not in {precision.computed}: "
            f"measure it anew"
        )
    clock = Clock(machine, precision)
    return Plan(
        machine=machine,
        precision=precision,
        work=work,
        parameters=cost.parameters,
        positions=cost.positions(work),
        visual_tokens=work.pictures * cost.config.num_image_tokens,
        memory=_memory(cost, work, precision, machine),
        stages=(*looking(clock, cost, work), reading(clock, cost, work)),
        step=writing(clock, cost, work),
        next_question=reading_on(clock, cost, work),
    )


def _memory(cost: Cost, work: Workload, precision: Precision, machine: Machine) -> Memory:
    """Bytes by part."""
    kind = torch.device(machine.device).type
    packs = kind == "cpu"  # and then the encoder's attention in bfloat16 is of plain operations
    head = cost.config.text_config.hidden_size * cost.config.text_config.vocab_size
    copies_head = packs and (precision.quantize is not None or head >= WORTH_PACKING)
    columns = round_columns(cost.positions(work) + work.new_tokens - 1)  # the last token is not run
    key_values = cost.key_value_bytes(precision)
    return Memory(
        weights=cost.weight_bytes(precision, copies_head=copies_head),
        keys_and_values=work.batch * columns * key_values,
        pictures=cost.feature_bytes(precision, work.all_pictures)
        + work.batch * kept_positions(cost, work) * key_values,
        activations=activation_bytes(cost, work, precision, keeps_scores=packs and precision.dtype == torch.bfloat16),
        process=PROCESS_BYTES.get(kind, 0),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """None if any is unknown."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


__all__ = ["Memory", "Plan", "check", "make_plan", "plan"]
