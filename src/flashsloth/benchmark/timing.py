"""Where the time of a run goes, and whether it had the machine to itself.

In: the modules of a model by stage, and what "now" is: a processor's clock, an accelerator's events, or a counter of
operations, so that FLOPs are split as seconds are. Out: a :class:`StageClock`: what each stage took up to the first
token, and when each token came.

Stages may lie inside one another (the merger inside Qwen2-VL's encoder, EmbQ inside the language model): each gets what
passed in it and in no stage within. What passed in none is "other": what the loop around the model costs.

:class:`CpuContention` tells what share of the machine's processor time others took meanwhile; :class:`Patience` says
whether a measurement is thrown away for it. Time that a hypervisor gave to other machines ("steal") is others' too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import psutil
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PREPARE, ENCODER, POOLING, PROJECTOR = "prepare", "encoder", "pooling", "projector"
LANGUAGE, QUERY, OTHER = "language", "query", "other"
STAGES = (PREPARE, ENCODER, POOLING, PROJECTOR, LANGUAGE, QUERY, OTHER)
"""Picture preparation, vision encoder, SAP or a resampler, projector, language model with its head, EmbQ, the rest."""

Kind = Literal["start", "enter", "leave", "token"]
Parts = Mapping[str, Sequence[nn.Module]]
"""Stage -> the modules that are run in it."""


class Scale(Protocol):
    """What "now" is, and how far apart two of them are.

    `between` is what passed from one to the other in the device's own queue; `known` what passed until this process
    knew of it. Only where the process does not wait for the device are they two things.
    """

    def now(self) -> Any: ...

    def between(self, earlier: Any, later: Any) -> float: ...

    def known(self, earlier: Any, later: Any) -> float: ...


class WallTime:
    """Seconds of this machine's clock."""

    def now(self) -> float:
        return time.perf_counter()

    def between(self, earlier: float, later: float) -> float:
        return later - earlier

    known = between


class CudaMoment(NamedTuple):
    """A place in an accelerator's queue, and when it was put there."""

    event: torch.cuda.Event
    wall: float


class CudaTime:
    """Seconds between events in an accelerator's queue: nothing waits for anything while they are laid.

    A token is stamped when its id is here, while the next step may be in the queue already: it is told by this
    machine's clock.
    """

    def now(self) -> CudaMoment:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return CudaMoment(event, time.perf_counter())

    def between(self, earlier: CudaMoment, later: CudaMoment) -> float:
        later.event.synchronize()
        return earlier.event.elapsed_time(later.event) / 1e3  # the event counts milliseconds

    def known(self, earlier: CudaMoment, later: CudaMoment) -> float:
        return later.wall - earlier.wall


class Operations:
    """Floating-point operations that torch's counter has seen."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self._counter = counter

    def now(self) -> int:
        return self._counter.get_total_flops()

    def between(self, earlier: int, later: int) -> float:
        return later - earlier

    known = between


def scale_of(device: torch.device) -> Scale:
    """How time is told on a device."""
    return CudaTime() if device.type == "cuda" else WallTime()


def wait_for(device: torch.device) -> None:
    """Until an accelerator has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StageClock:
    """The stamps of one run; it begins where the clock is made."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._marks: list[tuple[Kind, str, Any]] = []
        self._mark("start")

    def token(self) -> None:
        """A token is there (a row of tokens, in a batch)."""
        self._mark("token")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done in the block belongs to a stage."""
        self._mark("enter", name)
        yield
        self._mark("leave", name)

    @contextmanager
    def watching(self, parts: Parts) -> Iterator[None]:
        """While the block runs, every call of a part's modules belongs to its stage."""
        with ExitStack() as hooks:
            for name, modules in parts.items():
                for module in modules:
                    self._watch(module, name, hooks)
            yield

    @contextmanager
    def counting_steps(self, head: nn.Module) -> Iterator[None]:
        """While the block runs, every call of the language model's head is a token."""
        handle = head.register_forward_hook(lambda *_: self.token())
        try:
            yield
        finally:
            handle.remove()

    def stages(self) -> dict[str, float]:
        """Every stage's own part of what passed until the first token, `OTHER` included; in all, `tokens()[0]`."""
        spent = dict.fromkeys(STAGES, 0.0)
        open_stages: list[str] = []
        for (kind, name, stamp), (next_kind, _, next_stamp) in zip(self._marks, self._marks[1:], strict=False):
            if kind == "enter":
                open_stages.append(name)
            elif kind == "leave":
                assert open_stages.pop() == name
            spent[open_stages[-1] if open_stages else OTHER] += self._scale.between(stamp, next_stamp)
            if next_kind == "token":
                spent[OTHER] += self._scale.known(self._marks[0][2], next_stamp) - sum(spent.values())
                break
        return spent

    def tokens(self) -> list[float]:
        """When each token came, from the start on."""
        start = self._marks[0][2]
        return [self._scale.known(start, stamp) for kind, _, stamp in self._marks if kind == "token"]

    def _mark(self, kind: Kind, name: str = "") -> None:
        self._marks.append((kind, name, self._scale.now()))

    def _watch(self, module: nn.Module, name: str, hooks: ExitStack) -> None:
        hooks.callback(module.register_forward_pre_hook(lambda *_: self._mark("enter", name)).remove)
        hooks.callback(module.register_forward_hook(lambda *_: self._mark("leave", name)).remove)


DISTURBED_SHARE = 0.03
"""A measurement is disturbed if others took more of the machine's processor time than this."""
TOLERATED_SECONDS = 0.03
"""Others' seconds that do not count: both clocks tick in hundredths, and are not read at the same moment."""
BUSY_FIELDS = ("user", "nice", "system", "irq", "softirq", "steal")
"""Of psutil's times of all processors, as far as a system has them; guests' time is part of user's."""

Clock = Callable[[], float]


def machine_seconds() -> float:
    """Processor seconds that everything on this machine has used since it was started."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in BUSY_FIELDS)


def own_seconds() -> float:
    """Processor seconds of this process, all its threads, and of its children that have ended."""
    return sum(os.times()[:4])


@dataclass(frozen=True)
class CpuReading:
    """All clocks at one moment, in seconds: on the wall, of everything on this machine, and of this process."""

    wall: float
    machine: float
    own: float


class CpuContention:
    """Tells what share of the machine others took.

    Args:
        cores: processor cores of this machine.
        wall, machine, own: the clocks of :class:`CpuReading`.
    """

    def __init__(
        self,
        cores: int | None = None,
        wall: Clock = time.perf_counter,
        machine: Clock = machine_seconds,
        own: Clock = own_seconds,
    ) -> None:
        self._cores = (os.cpu_count() or 1) if cores is None else cores
        self._wall, self._machine, self._own = wall, machine, own

    def read(self) -> CpuReading:
        """The clocks now."""
        return CpuReading(self._wall(), self._machine(), self._own())

    def others_share(self, since: CpuReading) -> float:
        """What others took of the machine's processor time since a reading: 0 to 1."""
        now = self.read()
        wall = now.wall - since.wall
        others = (now.machine - since.machine) - (now.own - since.own) - TOLERATED_SECONDS
        return min(1.0, max(0.0, others) / (self._cores * wall)) if wall > 0 else 0.0


class Patience:
    """How many disturbed measurements may still be thrown away; those after that are kept, and marked."""

    def __init__(self, discards: int) -> None:
        self._left = discards
        self.discarded = 0

    def discards(self, share: float) -> bool:
        """Whether a measurement during which others took `share` is to be thrown away, and repeated."""
        if not is_disturbed(share) or self._left == 0:
            return False
        self._left -= 1
        self.discarded += 1
        return True


def is_disturbed(share: float) -> bool:
    """Whether others took too much for a measurement to count as undisturbed."""
    return share > DISTURBED_SHARE
