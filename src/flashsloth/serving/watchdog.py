"""A look at the engine from outside: whether it has died, or hangs.

In: the engine's thread, once it has made its first steps. Out: what is wrong with it, in a line.

It hangs where there is work and no step has ended for much longer than steps take. How long that is follows from the
longest step so far, and from what the one under way has to look at and to read before its first token: the first steps,
which warm a server up, have shown what one view and a short prompt cost. Time counts only while the watchdog itself
runs: a laptop that was closed, or a process that was stopped, has no hanging engine when it wakes up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from flashsloth.errors import EngineError
from flashsloth.inference.engine.engine_thread import EngineThread
from flashsloth.inference.request import Request
from flashsloth.serving.access_log import describe_error

LOOK_SECONDS = 0.25
"""Between two looks."""
LEAST_PATIENCE = 14.0
"""Seconds without the end of a step, after which an engine with quick steps hangs."""
PATIENCE, PLANNED_PATIENCE = 10.0, 3.0
"""The same as multiples of the longest step so far, and of what the step under way should take."""
SHORT_PROMPT = 100
"""Tokens of a prompt that cost no more than a first step."""


class Watchdog:
    """Watches an engine.

    Args:
        thread: the engine's.
        clock: in seconds.
    """

    def __init__(self, thread: EngineThread, clock: Callable[[], float] = time.monotonic) -> None:
        self._thread, self._clock = thread, clock
        self._first_steps = thread.longest_step
        self._steps, self._looked, self._quiet = thread.steps, clock(), 0.0

    def problem(self) -> str | None:
        """What is wrong; to be called every `LOOK_SECONDS`."""
        try:
            self._thread.check()
        except EngineError as error:
            cause = error.__cause__
            return "the engine has died" + ("" if cause is None else f": {describe_error(cause)}")
        now = self._clock()
        passed, self._looked = min(now - self._looked, 2 * LOOK_SECONDS), now
        if self._thread.steps != self._steps or not self._thread.engine.has_work:
            self._steps, self._quiet = self._thread.steps, 0.0
            return None
        self._quiet += passed
        if self._quiet < LEAST_PATIENCE or self._quiet < self._patience():
            return None
        return f"the engine has work and has not ended a step for {self._quiet:.0f} s: it hangs"

    def _patience(self) -> float:
        """Seconds that the step under way may take."""
        new = [one for one in list(self._thread.engine.scheduler.running) if not one.sampling.tokens]
        planned = self._first_steps * sum(_first_cost(one.request) for one in new)
        return max(PATIENCE * self._thread.longest_step, PLANNED_PATIENCE * planned)


def _first_cost(request: Request) -> float:
    """What a request's first token costs, in first steps."""
    made = () if request.pictures is None else request.pictures.made
    views = sum(one.shape[1] for one in made if isinstance(one, torch.Tensor))
    return views + len(request.prompt) / SHORT_PROMPT
