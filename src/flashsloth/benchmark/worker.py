"""A process that measures: `python -m flashsloth.benchmark.worker`, with `worker_process.py` at the other end.

In: requests on stdin, a JSON object a line: `{"do": "build", ...}`. Out: a reply on stdout for each, `{"result": ...}`
or `{"error": "one line"}`. It ends when stdin does. What libraries print goes to stderr.

    machine      device, dtypes                         a `Machine`, others_share, threads
    build        spec, job, device                      facts about a model, which is ready for:
    run            picture                                the standard job once
    again          picture                                another question about a picture
    batch          picture, rows                          many jobs at once
    peak                                                  bytes

    facts                                               what an accelerator is
    start        spec, job, device                      seconds until a model is there, and of its first answers; then:
    throughput     new_tokens, pictures, rows             a `Throughput`
    agree        spec, job, device                      an `Agreement`
    train        name, stage, rows, ..., device         a `DeviceTraining`
    measure      job, steps                             what training a `TrainingJob` took
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any, TextIO

import torch
import transformers

from flashsloth.benchmark.measure import MeasuredModel, make_model, sped_up
from flashsloth.benchmark.models.flashsloth import BenchmarkedFlashSloth
from flashsloth.benchmark.throughput import device_facts, measure_agreement, measure_throughput
from flashsloth.benchmark.timing import CpuContention, StageClock, WallTime
from flashsloth.benchmark.workload import BenchmarkModel, ModelSpec, StandardJob
from flashsloth.errors import BenchmarkError
from flashsloth.inference.load import DTYPES
from flashsloth.planning.machine import measure_machine

ON_A_MODEL = ("run", "again", "batch", "peak")
"""Requests to the :class:`MeasuredModel` that was built."""
REQUESTS = ("machine", "build", *ON_A_MODEL, "facts", "start", "throughput", "agree", "train", "measure")


class Worker:
    """What the requests do."""

    def __init__(self) -> None:
        self._contention = CpuContention()
        self._measured: MeasuredModel | None = None
        self._started: tuple[BenchmarkModel, str, StandardJob, torch.device] | None = None

    def answer(self, request: dict[str, Any]) -> Any:
        """The result of a request.

        Raises:
            BenchmarkError: for one that is not among :data:`REQUESTS`, or asks about a model that is not there.
        """
        arguments = dict(request)
        name = arguments.pop("do", None)
        if name not in REQUESTS:
            raise BenchmarkError(f"request is {name!r}; expected one of {', '.join(REQUESTS)}")
        if name in ON_A_MODEL and self._measured is None:
            raise BenchmarkError("nothing is built; expected the request 'build' first")
        return getattr(self._measured if name in ON_A_MODEL else self, name)(**arguments)

    def machine(self, device: str, dtypes: list[str]) -> dict[str, Any]:
        since = self._contention.read()
        machine = measure_machine(torch.device(device), [DTYPES[name] for name in dtypes])
        share = self._contention.others_share(since)
        return {"machine": dataclasses.asdict(machine), "others_share": share, "threads": torch.get_num_threads()}

    def build(self, spec: dict[str, Any], job: dict[str, Any], device: str) -> dict[str, Any]:
        made, task = ModelSpec(**spec), StandardJob(**job)
        self._measured = MeasuredModel(made, task, torch.device(device), self._contention)
        return self._measured.facts()

    def facts(self) -> dict[str, str]:
        return device_facts()

    def start(self, spec: dict[str, Any], job: dict[str, Any], device: str) -> dict[str, float]:
        start = time.perf_counter()
        made, task = ModelSpec(**spec), StandardJob(**job)
        model = sped_up(make_model(made, task, torch.device(device)), made)
        seconds = {"build": time.perf_counter() - start}
        for number, name in enumerate(("first_answer", "second_answer")):
            start = time.perf_counter()
            model.answer(task.picture(number), question=0, new_tokens=task.new_tokens, clock=StageClock(WallTime()))
            seconds[name] = time.perf_counter() - start
        self._started = model, made.name, task, torch.device(device)
        return seconds

    def throughput(self, new_tokens: int, pictures: int, rows: int) -> dict[str, Any]:
        if self._started is None:
            raise BenchmarkError("nothing is built; expected the request 'start' first")
        model, name, job, device = self._started
        return dataclasses.asdict(measure_throughput(model, name, job, pictures, new_tokens, rows, device))

    def agree(self, spec: dict[str, Any], job: dict[str, Any], device: str) -> dict[str, Any]:
        made, task = ModelSpec(**spec), StandardJob(**job)
        plain = make_model(dataclasses.replace(made, dtype="float32"), task, torch.device(device))
        if not isinstance(plain, BenchmarkedFlashSloth):
            raise BenchmarkError(f"{made.name} has no fast path; expected a FlashSloth")
        return dataclasses.asdict(measure_agreement(plain, made.name, made.dtype, made.quantize, task))

    def train(self, device: str, **arguments: Any) -> dict[str, Any]:
        from flashsloth.benchmark.device import measure_training

        return dataclasses.asdict(measure_training(**arguments, device=torch.device(device)))

    def measure(self, job: dict[str, Any], steps: int) -> dict[str, Any]:
        from flashsloth.benchmark.training import TrainingJob, measure_job

        return measure_job(TrainingJob(**job), steps, self._contention)


def serve(requests: Iterable[str], replies: TextIO, worker: Worker) -> None:
    """Answer every line; an error is an answer too."""
    for line in requests:
        try:
            reply: dict[str, Any] = {"result": worker.answer(json.loads(line))}
        except Exception as error:  # the one place where errors become replies
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    """Serve this process's own stdin and stdout."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library's print must not look like a reply
        serve(sys.stdin, replies, Worker())


if __name__ == "__main__":
    main()
