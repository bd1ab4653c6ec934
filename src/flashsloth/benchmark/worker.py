"""A process that measures one model: `python -m flashsloth.benchmark.worker`.

In: requests on stdin, a JSON object a line: `{"do": "build", ...}`. Out: a reply on stdout for each, `{"result": ...}`
or `{"error": "one line"}`. It ends when stdin does. What libraries print goes to stderr.

    machine   device, dtypes               a `Machine`, others_share, threads
    build     spec, job, device            facts about a model
    run       picture                      the standard job once
    again     picture                      another question about a picture
    batch     picture, rows                many jobs at once
    peak                                   bytes
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TextIO

import torch
import transformers

from flashsloth.benchmark.measure import MeasuredModel
from flashsloth.benchmark.timing import CpuContention
from flashsloth.benchmark.workload import ModelSpec, StandardJob
from flashsloth.errors import BenchmarkError
from flashsloth.inference.load import DTYPES
from flashsloth.planning.machine import measure_machine

REQUESTS = ("machine", "build", "run", "again", "batch", "peak")


class Answering(Protocol):
    """Whatever answers requests."""

    def answer(self, request: dict[str, Any]) -> Any: ...


class Worker:
    """What the requests do."""

    def __init__(self, watch: CpuContention | None = None) -> None:
        self._watch = CpuContention() if watch is None else watch
        self._measured: MeasuredModel | None = None

    def answer(self, request: dict[str, Any]) -> Any:
        """The result of a request; a `BenchmarkError` for an unknown one."""
        return dispatch(self, REQUESTS, request)

    def machine(self, device: str, dtypes: list[str]) -> dict[str, Any]:
        """Measure the machine."""
        since = self._watch.read()
        machine = measure_machine(torch.device(device), [DTYPES[name] for name in dtypes])
        share = self._watch.others_share(since)
        return {"machine": dataclasses.asdict(machine), "others_share": share, "threads": torch.get_num_threads()}

    def build(self, spec: dict[str, Any], job: dict[str, Any], device: str) -> dict[str, Any]:
        """Make a model."""
        self._measured = MeasuredModel(ModelSpec(**spec), StandardJob(**job), torch.device(device), self._watch)
        return self._measured.facts()

    def run(self, picture: int) -> dict[str, Any]:
        """Do the standard job once."""
        return self._model.run(picture)

    def again(self, picture: int) -> dict[str, Any]:
        """Ask another question about a picture."""
        return self._model.again(picture)

    def batch(self, picture: int, rows: int) -> dict[str, Any]:
        """Do many jobs at once."""
        return self._model.batch(picture, rows)

    def peak(self) -> int:
        """The most memory held."""
        return self._model.peak()

    @property
    def _model(self) -> MeasuredModel:
        if self._measured is None:
            raise BenchmarkError("nothing is built; expected the request 'build' first")
        return self._measured


def dispatch(worker: Any, known: Sequence[str], request: dict[str, Any]) -> Any:
    """Call the method of `worker` that a request names, with what else the request holds.

    Raises:
        BenchmarkError: for one that is not among the known.
    """
    arguments = dict(request)
    name = arguments.pop("do", None)
    if name not in known:
        raise BenchmarkError(f"request is {name!r}; expected one of {', '.join(known)}")
    return getattr(worker, name)(**arguments)


def serve(requests: Iterable[str], replies: TextIO, worker: Answering) -> None:
    """Answer every line; an error is an answer too."""
    for line in requests:
        try:
            reply: dict[str, Any] = {"result": worker.answer(json.loads(line))}
        except Exception as error:  # the one place where errors become replies
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def serve_process(worker: Answering) -> None:
    """Serve this process's own stdin and stdout."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library's print must not look like a reply
        serve(sys.stdin, replies, worker)


def main() -> None:
    """Be a worker."""
    serve_process(Worker())


if __name__ == "__main__":
    main()
