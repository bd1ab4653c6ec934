"""What the watchdog takes for a hanging engine, and what it does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import flashsloth
from flashsloth.errors import EngineError
from flashsloth.inference.options import Options
from flashsloth.serving.watchdog import LEAST_PATIENCE, LOOK_SECONDS, PATIENCE, PLANNED_PATIENCE, SHORT_PROMPT, Watchdog


class Thread:
    """As much of an engine's thread as is looked at."""

    def __init__(self) -> None:
        self.engine = SimpleNamespace(has_work=True, scheduler=SimpleNamespace(running=[]))
        self.steps, self.longest_step = 0, 0.01
        self.failure: EngineError | None = None

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure


class Clock:
    """Goes on as a test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def seconds_until_problem(dog: Watchdog, clock: Clock, most: float) -> float | None:
    """How long a watchdog is patient while nothing happens."""
    started = clock.now
    while clock.now - started < most:
        clock.now += LOOK_SECONDS
        if dog.problem():
            return clock.now - started
    return None


def watched() -> tuple[Any, Clock, Watchdog]:
    thread, clock = Thread(), Clock()
    return thread, clock, Watchdog(thread, clock)  # type: ignore[arg-type]


def test_an_engine_with_work_that_ends_no_step_hangs() -> None:
    _, clock, dog = watched()
    assert seconds_until_problem(dog, clock, 100) == pytest.approx(LEAST_PATIENCE, abs=LOOK_SECONDS)


def test_where_steps_are_long_so_is_patience() -> None:
    thread, clock, dog = watched()
    thread.longest_step = 7.0
    assert seconds_until_problem(dog, clock, 100) == pytest.approx(7.0 * PATIENCE, abs=LOOK_SECONDS)


def test_many_pictures_in_one_step_take_their_time() -> None:
    sloth = flashsloth.load()
    thread = sloth.engine_thread
    thread.longest_step = first = 7.0  # as at true size on a laptop
    clock = Clock()
    dog = Watchdog(thread, clock)
    opened = [sloth.image_encoder.prepare([Image.new("RGB", (32, 32), (number, 0, 0))]) for number in range(4)]
    requests = [sloth.conversation_request(ask(), one, Options()) for one in opened]
    for request in requests:
        thread.engine.add_request(request)
    thread.engine._receive()
    assert len(thread.engine.scheduler.admit()) == 4  # and now the step looks at them
    tokens = sum(len(request.prompt) for request in requests)
    expected = PLANNED_PATIENCE * first * (4 + tokens / SHORT_PROMPT)
    assert expected > PATIENCE * first
    assert seconds_until_problem(dog, clock, 1000) == pytest.approx(expected, abs=LOOK_SECONDS)


def ask() -> Any:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color is it?"}]}]


def test_no_false_alarm() -> None:
    thread, clock, dog = watched()
    for _ in range(20):  # steps end, now and then
        assert seconds_until_problem(dog, clock, LEAST_PATIENCE * 0.9) is None
        thread.steps += 1
        assert dog.problem() is None
    thread.engine.has_work = False
    assert seconds_until_problem(dog, clock, 10_000) is None
    thread.engine.has_work = True
    clock.now += 10_000  # the process was stopped
    assert dog.problem() is None
    assert seconds_until_problem(dog, clock, LEAST_PATIENCE * 0.9) is None


def test_an_engine_that_died() -> None:
    thread, _, dog = watched()
    thread.failure = EngineError("failed with a secret")
    thread.failure.__cause__ = RuntimeError("a secret")
    assert dog.problem() == "the engine has died: RuntimeError"
