"""A look at the engine from outside: whether it has died, or hangs.

In: the engine's thread. Out: what is wrong with it, in a line.

It hangs where there is work and no step has ended for much longer than steps take. Time counts only while the watchdog
itself runs: a laptop that was closed, or a process that was stopped, has no hanging engine when it wakes up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flashsloth.errors import EngineError
from flashsloth.inference.engine.engine_thread import EngineThread
from flashsloth.serving.access_log import describe_error

LOOK_SECONDS = 0.25
"""Between two looks."""
LEAST_PATIENCE = 14.0
"""Seconds without the end of a step, after which an engine with quick steps hangs."""
PATIENCE = 10.0
"""The same as a multiple of the longest step."""


class Watchdog:
    """Watches an engine.

    Args:
        thread: the engine's.
        longest_step: seconds that a step is expected to take at most, before any was seen.
        clock: in seconds.
    """

    def __init__(
        self, thread: EngineThread, longest_step: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._thread, self._longest_step, self._clock = thread, longest_step, clock
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
        patience = max(LEAST_PATIENCE, PATIENCE * max(self._longest_step, self._thread.longest_step))
        if self._quiet < patience:
            return None
        return f"the engine has work and has not ended a step for {self._quiet:.0f} s: it hangs"
