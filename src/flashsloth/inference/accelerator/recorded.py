"""A pass that is compiled once for its shapes, recorded, and then only replayed.

In: a function of tensors and whole numbers. Out: the same function. Three ways of running it, each with the next as its
fallback, and a warning when one is left for good:

    compiled and recorded       torch.compile makes few large kernels; a CUDA graph starts them all at once
    recorded                    the plain operations, started all at once
    plain                       as Python says

A graph reads its inputs where they stood when it was recorded, so those that move are copied there; and it writes its
output into the same memory every time: who keeps an output copies it.

torch.compile's own "reduce-overhead" records graphs too. Here they are recorded by hand: a replay then costs no guards
to check, works from any thread, and what cannot be compiled can still be recorded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from flashsloth.inference.accelerator.settings import AcceleratorSettings

logger = logging.getLogger(__name__)

WARM_UP_RUNS = 2
"""Before a recording: libraries choose their kernels, and make room, when they are first called."""
RECOMPILE_LIMIT = 64
"""Shapes that one pass may be compiled for; torch takes sizes as variable once they have varied."""
SHOWN_CAUSE_CHARACTERS = 300

Tensors = tuple[torch.Tensor | None, ...]


@dataclass
class CompiledPass:
    """A function with its compiled form; shared by all recordings of it, in whichever memory they stand.

    Attributes:
        name: for reports.
        function: takes lists of tensors, tensors, None and whole numbers; changes nothing but the tensors it is given.
        settings: the backend.
        compiled: its compiled form; None if there is none.
        seconds: spent on compiling so far.
    """

    name: str
    function: Callable[..., Any]
    settings: AcceleratorSettings
    compiled: Callable[..., Any] | None = None
    seconds: float = 0.0
    _known: set[Hashable] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.settings.backend is not None:
            self.compiled = torch.compile(self.function, fullgraph=True, backend=self.settings.backend)

    def __call__(self, key: Hashable, *arguments: Any) -> Any:
        """Run it, compiled if that works. `key` tells shapes apart, for knowing what was compiled when."""
        if self.compiled is None:
            return self.function(*arguments)
        if key in self._known:
            return self.compiled(*arguments)
        start = time.perf_counter()
        try:
            with torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT):
                output = self.compiled(*arguments)
        except Exception as error:  # compilers fail in every way; the plain function then says what is really wrong
            self.compiled = None
            logger.warning("%s cannot be compiled here, and runs as it is: %s", self.name, _cause(error))
            return self.function(*arguments)
        self._known.add(key)
        spent = time.perf_counter() - start
        self.seconds += spent
        logger.info("%s: compiled for %s in %.1f s", self.name, key, spent)
        return output


class RecordedPass(nn.Module):
    """A compiled pass in fixed memory. A module, so that hooks can watch its calls from outside.

    Args:
        what: to run.
        fixed: arguments that never change: lists of tensors that stay where they are.
        records: whether graphs are recorded.
    """

    def __init__(self, what: CompiledPass, fixed: tuple[Any, ...], records: bool) -> None:
        super().__init__()
        self.what, self.records = what, records
        self._fixed = fixed
        self._recordings: dict[Hashable, Recording] = {}
        self._pool: Any = None

    def forward(self, *inputs: torch.Tensor | None, numbers: tuple[int, ...] = (), record: bool = True) -> Any:
        """The function's output for `fixed`, `inputs` and `numbers`; it is written over by the next call."""
        key = (*(None if tensor is None else tuple(tensor.shape) for tensor in inputs), *numbers)
        if key in self._recordings:
            return self._recordings[key].replay(inputs)
        if not (self.records and record):
            return self.what(key, *self._fixed, *inputs, *numbers)
        try:
            recording = self._record(key, inputs, numbers)
        except RuntimeError as error:
            self.records = False
            logger.warning(
                "%s cannot be recorded here, and is started anew each time: %s", self.what.name, _cause(error)
            )
            return self.what(key, *self._fixed, *inputs, *numbers)
        self._recordings[key] = recording
        return recording.replay(inputs)

    @property
    def recorded(self) -> int:
        """How many shapes have been recorded."""
        return len(self._recordings)

    def _record(self, key: Hashable, inputs: Tensors, numbers: tuple[int, ...]) -> Recording:
        """Run the function beside, for its libraries to settle, then record it. Doing it twice must do no harm."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            held = tuple(None if tensor is None else tensor.clone() for tensor in inputs)
            for _ in range(WARM_UP_RUNS):
                self.what(key, *self._fixed, *held, *numbers)
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self.what(key, *self._fixed, *held, *numbers)
        return Recording(graph, held, output)


@dataclass
class Recording:
    """A CUDA graph with the memory that it reads from and writes to."""

    graph: Any
    inputs: Tensors
    output: Any

    def replay(self, inputs: Tensors) -> Any:
        """Copy the inputs to where the graph reads them, and start it."""
        for held, given in zip(self.inputs, inputs, strict=True):
            if held is not None and given is not None:
                held.copy_(given)
        self.graph.replay()
        return self.output


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:SHOWN_CAUSE_CHARACTERS]}"


__all__ = ["CompiledPass", "RecordedPass", "Recording"]
