"""The parts of an answer, one after the other: how long a machine needs for each, at least and as expected.

In: a :class:`Cost`, a workload, and a :class:`Clock` that knows the machine. Out: :class:`Stage` objects:

    picture preparation -> encoder -> SAP + projector -> prefill -> token, token, ...
                                                    another question -> token, ...    (about pictures that are kept)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flashsloth.benchmark.cost import EMBQ, ENCODER, HEAD, PROJECTOR, SAP, Cost, Workload
from flashsloth.benchmark.efficiency import efficiency_of
from flashsloth.benchmark.job import OPENING_SHARE
from flashsloth.benchmark.machine import Machine
from flashsloth.benchmark.units import readable
from flashsloth.benchmark.weights import Precision
from flashsloth.inference.vision import PICTURES_AT_A_TIME

PREPARATION, LOOK, POOLING, PREFILL = "picture preparation", "encoder", "SAP + projector", "prefill"
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


def looking(clock: Clock, cost: Cost, work: Workload) -> tuple[Stage, ...]:
    """Preparation, encoder, SAP and projector; nothing without pictures."""
    pictures, config = work.all_pictures, cost.config
    if not pictures:
        return ()
    flops = cost.look_flops(pictures)
    passes = -(-pictures // PICTURES_AT_A_TIME)
    between = (cost.parameters[SAP] + cost.parameters[PROJECTOR]) * clock.precision.itemsize
    encoder = passes * cost.encoder_bytes(clock.precision)
    return (
        clock.time_preparation(pictures, config.num_views, config.vision_config.image_size),
        clock.time(LOOK, flops[ENCODER], encoder, "encoder", layers=passes * cost.encoder.layers),
        clock.time(POOLING, flops[SAP] + flops[PROJECTOR], passes * between, "pooling", layers=passes),
    )


def reading(clock: Clock, cost: Cost, work: Workload) -> Stage:
    """The pass over the prompts, which ends in the first token of every answer."""
    return _read(clock, cost, work, PREFILL, kept=0)


def reading_on(clock: Clock, cost: Cost, work: Workload) -> Stage | None:
    """The pass over another question about pictures that are kept; None without pictures."""
    return _read(clock, cost, work, NEXT_QUESTION, kept=kept_positions(cost, work)) if work.pictures else None


def writing(clock: Clock, cost: Cost, work: Workload) -> Stage:
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


def _read(clock: Clock, cost: Cost, work: Workload, name: str, *, kept: int) -> Stage:
    positions = cost.positions(work)
    flops = cost.prompt_flops(work)
    layers = work.batch * cost.language_model.flops(positions - kept, positions)
    size = cost.step_bytes(clock.precision) + work.batch * kept * cost.key_value_bytes(clock.precision)
    count = cost.language_model.layers + bool(work.pictures)  # EmbQ is as another layer
    return clock.time(name, layers + flops[EMBQ] + flops[HEAD], size, "prefill", layers=count, tokens=1)


__all__ = [
    "LOOK",
    "NEXT_QUESTION",
    "POOLING",
    "PREFILL",
    "PREPARATION",
    "STEP",
    "Clock",
    "Stage",
    "kept_positions",
    "looking",
    "reading",
    "reading_on",
    "writing",
]
