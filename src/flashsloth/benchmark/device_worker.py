"""A process that measures an accelerator's busy side: `python -m flashsloth.benchmark.device_worker`.

In: requests on stdin, a JSON object a line (see `worker.py`). Out: replies on stdout.

    facts                                                   what the device is, as `device_facts.py`
    build        spec, job, device                          a model, sped up where that is asked for; its warm-up
    throughput   new_tokens, pictures, rows                 as `throughput.py`
    agree        spec, job, device                          as `agreement.py`
    train        name, stage, rows, text_tokens, steps, device      as `device_training.py`
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from flashsloth.benchmark.device import measure_training
from flashsloth.benchmark.measure import make_model
from flashsloth.benchmark.models.flashsloth import BenchmarkedFlashSloth
from flashsloth.benchmark.throughput import device_facts, measure_agreement, measure_throughput
from flashsloth.benchmark.timing import StageClock, WallTime
from flashsloth.benchmark.worker import dispatch, serve_process
from flashsloth.benchmark.workload import BenchmarkModel, ModelSpec, StandardJob
from flashsloth.errors import BenchmarkError

REQUESTS = ("facts", "build", "throughput", "agree", "train")


class DeviceWorker:
    """What the requests do."""

    def __init__(self) -> None:
        self._built: tuple[BenchmarkModel, ModelSpec, StandardJob, torch.device] | None = None

    def answer(self, request: dict[str, Any]) -> Any:
        """The result of a request; a `BenchmarkError` for an unknown one."""
        return dispatch(self, REQUESTS, request)

    def facts(self) -> dict[str, str]:
        """What the device is."""
        return device_facts()

    def build(self, spec: dict[str, Any], job: dict[str, Any], device: str) -> dict[str, float]:
        """Make a model, and let it answer twice: seconds to make it, and of each answer."""
        start = time.perf_counter()
        made, task, where = ModelSpec(**spec), StandardJob(**job), torch.device(device)
        model = make_model(made, task, where)
        if isinstance(model, BenchmarkedFlashSloth) and made.optimize:
            model.speed_up(made.quantize)  # type: ignore[arg-type]  # checked there
        seconds = {"build": time.perf_counter() - start}
        for number, name in enumerate(("first_answer", "second_answer")):
            start = time.perf_counter()
            model.answer(task.picture(number), question=0, new_tokens=task.new_tokens, clock=StageClock(WallTime()))
            seconds[name] = time.perf_counter() - start
        self._built = model, made, task, where
        return seconds

    def throughput(self, new_tokens: int, pictures: int, rows: int) -> dict[str, Any]:
        """Many pictures, a question each."""
        if self._built is None:
            raise BenchmarkError("nothing is built; expected the request 'build' first")
        model, spec, job, device = self._built
        return measure_throughput(model, spec.name, job, pictures, new_tokens, rows, device).to_dict()

    def agree(self, spec: dict[str, Any], job: dict[str, Any], device: str) -> dict[str, Any]:
        """How near the fast path is to the plain one in float32."""
        made, task = ModelSpec(**spec), StandardJob(**job)
        plain = make_model(dataclasses.replace(made, dtype="float32"), task, torch.device(device))
        if not isinstance(plain, BenchmarkedFlashSloth):
            raise BenchmarkError(f"{made.name} has no fast path; expected a FlashSloth")
        return measure_agreement(plain, made.name, made.dtype, made.quantize, task).to_dict()

    def train(
        self, name: str, stage: str, rows: int, text_tokens: int, steps: int, device: str, size: str | None
    ) -> dict[str, Any]:
        """Training steps."""
        where = torch.device(device)
        return measure_training(name, stage, rows, text_tokens, steps, where, size=size).to_dict()


def main() -> None:
    """Be a worker."""
    serve_process(DeviceWorker())


if __name__ == "__main__":
    main()
