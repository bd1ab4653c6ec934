"""What an answer takes on a machine, before anything is loaded: memory, time to the first token, tokens a second.

In: a configuration, a machine's limits, a precision, and what is asked. Out: a :class:`Plan`: the memory by part, and
each :class:`Stage` of an answer with its limit, how long it is expected to take, and what that rests on:

    picture preparation -> encoder -> SAP + projector -> prefill -> token, token, ...
                                                    another question -> token, ...    (about pictures that are kept)

    work (`flops.py`, `memory.py`)  x  limits (`machine.py`)  x  shares reached of them (`efficiency.py`)

Where nobody has measured what is reached of a device's limits, only the limits are told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from flashsloth.errors import BenchmarkError
from flashsloth.inference.kv_cache import round_columns
from flashsloth.inference.vision import PICTURES_AT_A_TIME
from flashsloth.kernels import QUANTIZATIONS
from flashsloth.kernels.optimize import WORTH_PACKING
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.planning import NEW_TOKENS, OPENING_SHARE, TEXT_TOKENS
from flashsloth.planning.efficiency import efficiency_of
from flashsloth.planning.flops import (
    EMBQ,
    ENCODER,
    HEAD,
    PROJECTOR,
    SAP,
    Cost,
    Precision,
    Workload,
)
from flashsloth.planning.machine import Machine, readable
from flashsloth.planning.memory import activation_bytes

PREPARATION, ENCODE, POOLING, PREFILL = "picture preparation", "encoder", "SAP + projector", "prefill"
STEP, NEXT_QUESTION = "token", "another question"


@dataclass(frozen=True)
class Stage:
    """One part of an answer.

    Attributes:
        name: one of this module's constants.
        flops, bytes: its work: operations, and weights, keys and values to read.
        limit_seconds: how long the machine needs for it at least.
        layers: how many transformer layers are begun.
        fixed_seconds: what it takes beside, however fast the machine is; None if unknown.
        seconds: how long it is expected to take; None if unknown.
        rests_on: what that was worked out from.
    """

    name: str
    flops: float
    bytes: float
    limit_seconds: float
    layers: int
    fixed_seconds: float | None
    seconds: float | None
    rests_on: str


class Clock:
    """Turns work into time, on one machine in one precision."""

    def __init__(self, machine: Machine, precision: Precision) -> None:
        self.precision = precision
        self._rate = machine.matrix_rate[precision.computed]
        self._bandwidth = machine.read_bandwidth
        self._reached = efficiency_of(torch.device(machine.device).type, precision.stored)

    def time(
        self, name: str, flops: float, size: float, share: str, *, layers: int = 0, tokens: int = 0, rows: int = 1
    ) -> Stage:
        """A stage that is bound by whichever takes longer, its FLOPs or its bytes.

        Args:
            name, flops, size: of the stage.
            share: the field of :class:`Efficiency` that it reaches.
            layers, tokens: how many of them are begun.
            rows: of a batch whose further rows make it slower than its limit tells.
        """
        computing, reading = flops / self._rate, size / self._bandwidth
        limit = max(computing, reading)
        if computing >= reading:
            amount, bound = readable(flops, "FLOP"), readable(self._rate, "FLOP/s")
        else:
            amount, bound = readable(size, "B"), readable(self._bandwidth, "B/s")
        if self._reached is None:
            return Stage(name, flops, size, limit, layers, None, None, f"{amount} at {bound}")
        efficiency, fixed = self._reached
        reached = getattr(efficiency, share) / (1 + efficiency.row * (rows - 1))
        beside = layers * fixed.layer + tokens * fixed.token
        basis = f"{amount} at {reached:.0%} of {bound}" + (f" + {readable(beside, 's')}" if beside else "")
        return Stage(name, flops, size, limit, layers, beside, limit / reached + beside, basis)

    def time_preparation(self, pictures: int, views: int, side: int) -> Stage:
        """Making views of pictures, so many of each: Pillow's work, on the processor, which has no limit here."""
        seconds = None
        if self._reached is not None:
            _, fixed = self._reached
            seconds = pictures * (fixed.picture + views * side**2 * fixed.view_pixel)
        basis = f"{pictures * views} views of {side}x{side} pixels"
        return Stage(PREPARATION, 0, 0, 0.0, 0, seconds, seconds, basis)


def encode_stages(clock: Clock, cost: Cost, work: Workload) -> tuple[Stage, ...]:
    """Preparation, encoder, SAP and projector; nothing without pictures."""
    pictures, config = work.all_pictures, cost.config
    if not pictures:
        return ()
    flops = cost.encode_flops(pictures)
    passes = -(-pictures // PICTURES_AT_A_TIME)
    between = (cost.parameters[SAP] + cost.parameters[PROJECTOR]) * clock.precision.itemsize
    encoder = passes * cost.encoder.parameters * clock.precision.itemsize
    return (
        clock.time_preparation(pictures, config.num_views, config.vision_config.image_size),
        clock.time(ENCODE, flops[ENCODER], encoder, "encoder", layers=passes * cost.encoder.layers),
        clock.time(POOLING, flops[SAP] + flops[PROJECTOR], passes * between, "pooling", layers=passes),
    )


def decode_stage(clock: Clock, cost: Cost, work: Workload) -> Stage:
    """One more token of every answer, halfway through."""
    attended = cost.positions(work) + work.new_tokens / 2
    flops = cost.step_flops(attended, work.batch)
    size = cost.step_bytes(clock.precision) + work.batch * attended * cost.key_value_bytes(clock.precision)
    return clock.time(STEP, flops, size, "decode", layers=cost.language_model.layers, tokens=1, rows=work.batch)


def kept_positions(cost: Cost, work: Workload) -> int:
    """Positions of a prompt that are kept with its pictures, as the standard job has them: text before, pictures."""
    if not work.pictures:
        return 0
    return round(work.text_tokens * OPENING_SHARE) + work.pictures * cost.config.num_image_tokens


def prefill_stage(clock: Clock, cost: Cost, work: Workload, name: str = PREFILL, *, kept: int = 0) -> Stage:
    """The pass over the prompts, of which so many positions are kept already; it ends in every answer's first token."""
    positions = cost.positions(work)
    flops = cost.prompt_flops(work)
    layers = work.batch * cost.language_model.flops(positions - kept, positions)
    size = cost.step_bytes(clock.precision) + work.batch * kept * cost.key_value_bytes(clock.precision)
    count = cost.language_model.layers + bool(work.pictures)  # EmbQ is as another layer
    return clock.time(name, layers + flops[EMBQ] + flops[HEAD], size, "prefill", layers=count, tokens=1)


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
            "machine": dataclasses.asdict(self.machine),
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
            f"measure it again"
        )
    clock, kept = Clock(machine, precision), kept_positions(cost, work)
    return Plan(
        machine=machine,
        precision=precision,
        work=work,
        parameters=cost.parameters,
        positions=cost.positions(work),
        visual_tokens=work.pictures * cost.config.num_image_tokens,
        memory=_memory(cost, work, precision, machine),
        stages=(*encode_stages(clock, cost, work), prefill_stage(clock, cost, work)),
        step=decode_stage(clock, cost, work),
        next_question=prefill_stage(clock, cost, work, NEXT_QUESTION, kept=kept) if work.pictures else None,
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
