"""Who runs when: the first model stays, the others come one after the other, and runs alternate.

In: models, a job, and how to start a worker. Out: :class:`Results`.

    machine
    first | other | first | other | ...      a paired run: only its runs are compared with one another
    first | next  | first | next  | ...

Where both do not fit into memory, they are made in turns, for a block of runs each. A disturbed run is thrown away and
repeated, as often as patience allows; a model that fails is reported, and the others are measured.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from flashsloth.benchmark.results import ModelResult, PairedRun, Results, Run
from flashsloth.benchmark.timing import Patience, is_disturbed
from flashsloth.benchmark.worker_process import WorkerError, WorkerProcess
from flashsloth.benchmark.workload import BASELINE, ModelSpec, StandardJob
from flashsloth.planning.flops import check_counts
from flashsloth.version import __version__

SETTLE_SECONDS = 0.3
"""Before a run: threads of the process that ran before it may still be spinning for work."""
BLOCKS = 2
"""How often two models that do not fit into memory together take turns."""
MOST_BATCHES = 3
MACHINE_PATIENCE = 3
WEIGHTS_FACTOR, WORK_BYTES = 1.2, 1.5e9
"""A model needs its weights and so much more while they are packed, and this for libraries and activations."""


@dataclass(frozen=True)
class Settings:
    """What a suite is told.

    Attributes:
        suite: its name, for the report.
        device: where.
        job: the standard job.
        repeats: runs of each model in each of its paired runs.
        batch: rows of the batched job.
        batched: names of the models that do it.
    """

    suite: str
    device: str
    job: StandardJob
    repeats: int
    batch: int
    batched: tuple[str, ...]

    def __post_init__(self) -> None:
        check_counts(self, repeats=1, batch=1)


class ModelWorker:
    """One model's place: its worker, while there is one, and what was found of it."""

    def __init__(self, spec: ModelSpec, settings: Settings, start: Callable[[], WorkerProcess], say: Callable) -> None:
        self.spec, self._settings, self._start, self._say = spec, settings, start, say
        self._worker: WorkerProcess | None = None
        self._pictures = 0
        self.result = ModelResult(spec.name, spec.title, spec.kind, spec.dtype, spec.precision, spec.varies)

    @property
    def failed(self) -> bool:
        """Whether nothing more can be had from this model."""
        return self.result.failure is not None

    def open(self) -> None:
        """Start the worker and make the model."""
        if self.failed or self._worker is not None:
            return
        self._say(f"{self.spec.title}: making it")
        self._worker = self._start()
        facts = self._ask(
            "build",
            spec=dataclasses.asdict(self.spec),
            job=dataclasses.asdict(self._settings.job),
            device=self._settings.device,
        )
        if facts is not None:
            for name, value in facts.items():
                setattr(self.result, name, value)

    def close(self, *, at_once: bool = False) -> None:
        """End the worker, if there is one."""
        if self._worker is None:
            return
        if not (at_once or self.failed) and (peak := self._ask("peak")) is not None:
            self.result.peak_bytes = max(peak, self.result.peak_bytes or 0)
        if self._worker is not None:
            self._worker.close(at_once=at_once)
            self._worker = None

    def run(self, patience: Patience, places: list[int] | None = None) -> None:
        """The standard job once, undisturbed if patience lasts; its place among the model's runs goes into `places`."""
        self._say(f"{self.spec.title}: run {len(self.result.runs) + 1}")
        run = self._measure("run", patience)
        if run is None:
            return
        if places is not None:
            places.append(len(self.result.runs))
        self.result.runs.append(run)

    def run_more(self) -> None:
        """The jobs that are not compared: another question about a picture, and many at once."""
        repeats, settings = self._settings.repeats, self._settings
        if self.spec.kind != BASELINE:
            self._say(f"{self.spec.title}: another question about the same picture")
            self._collect("again", self.result.again, repeats)
        if self.spec.name in settings.batched and settings.batch > 1:
            self._say(f"{self.spec.title}: {settings.batch} at once")
            self.result.batch_rows = settings.batch
            self._collect("batch", self.result.batches, min(repeats, MOST_BATCHES), rows=settings.batch)

    def _collect(self, what: str, found: list[Run], repeats: int, **arguments: int) -> None:
        patience = Patience(repeats)
        for _ in range(repeats):
            run = self._measure(what, patience, **arguments)
            if run is None:
                return
            found.append(run)

    def _measure(self, what: str, patience: Patience, **arguments: int) -> Run | None:
        while True:
            time.sleep(SETTLE_SECONDS)
            picture = self._pictures + 1  # every measurement has pictures of its own
            self._pictures += arguments.get("rows", 1)
            stamps = self._ask(what, picture=picture, **arguments)
            if stamps is None:
                return None
            run = Run(**stamps)
            if not patience.discards(run.others_share):
                run.disturbed = is_disturbed(run.others_share)
                return run
            self.result.discarded += 1

    def _ask(self, do: str, **arguments: Any) -> Any:
        """A request's result; None, and the model has failed, if there is none."""
        if self._worker is None:
            return None
        try:
            return self._worker.request(do, **arguments)
        except WorkerError as error:
            self.result.failure = f"{do}: {error}"
            self._say(f"{self.spec.title} failed: {error}")
            self._worker.close(at_once=True)
            self._worker = None
            return None


class Bench:
    """A suite, run once.

    Args:
        settings: see there.
        start: starts a worker.
        available: bytes of memory that another process could have.
        say: is told what is done next.
        keep: is given all that is known whenever a model is done, so that an hour is not lost with its last minute.
    """

    def __init__(
        self,
        settings: Settings,
        start: Callable[[], WorkerProcess],
        available: Callable[[], int],
        say: Callable[[str], None],
        keep: Callable[[Results], None] | None = None,
    ) -> None:
        self._settings, self._start, self._available, self._say = settings, start, available, say
        self._keep = keep
        self._paired_runs: list[PairedRun] = []

    def run(self, specs: Sequence[ModelSpec]) -> Results:
        """Measure the machine and the models; whatever happens, no worker is left."""
        results = self._measure_machine(specs)
        workers = [ModelWorker(spec, self._settings, self._start, self._say) for spec in specs]
        results.subjects = [worker.result for worker in workers]
        results.sittings = self._paired_runs
        try:
            self._run_all(workers, results)
        except BaseException:
            for worker in workers:
                worker.close(at_once=True)
            raise
        return results

    def _run_all(self, workers: list[ModelWorker], results: Results) -> None:
        first, *others = workers
        first.open()
        for other in others:
            self._run_pair(first, other)
            if self._keep is not None:
                self._keep(results)
        if not others:
            patience = Patience(self._settings.repeats)
            for _ in range(self._settings.repeats):
                first.run(patience)
        first.open()
        first.run_more()
        first.close()

    def _run_pair(self, first: ModelWorker, other: ModelWorker) -> None:
        """Run two models alternately."""
        pair = PairedRun(first.spec.name, other.spec.name)
        patiences = Patience(self._settings.repeats), Patience(self._settings.repeats)
        if first.failed or other.spec.bytes * WEIGHTS_FACTOR + WORK_BYTES <= self._available():
            other.open()
            for _ in range(self._settings.repeats):
                first.run(patiences[0], pair.reference_runs)
                other.run(patiences[1], pair.other_runs)
        else:
            self._say(f"{first.spec.title} and {other.spec.title} do not fit into memory together: they take turns")
            first.result.in_turns = other.result.in_turns = True
            for block in _blocks(self._settings.repeats):
                for worker, patience, runs in (
                    (first, patiences[0], pair.reference_runs),
                    (other, patiences[1], pair.other_runs),
                ):
                    (other if worker is first else first).close()
                    worker.open()
                    for _ in range(block):
                        worker.run(patience, runs)
        other.run_more()
        other.close()
        first.open()
        self._paired_runs.append(pair)

    def _measure_machine(self, specs: Sequence[ModelSpec]) -> Results:
        dtypes = sorted({spec.dtype for spec in specs})
        patience = Patience(MACHINE_PATIENCE)
        self._say("measuring the machine")
        with closing(self._start()) as worker:
            while True:
                found = worker.request("machine", device=self._settings.device, dtypes=dtypes)
                if not patience.discards(found["others_share"]):
                    break
        return Results(
            suite=self._settings.suite,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            flashsloth=__version__,
            threads=found["threads"],
            job=dataclasses.asdict(self._settings.job),
            machine=found["machine"],
            machine_disturbed=is_disturbed(found["others_share"]),
        )


def _blocks(repeats: int) -> list[int]:
    """`repeats` in blocks of about the same size: 5 -> [3, 2]."""
    blocks = min(BLOCKS, repeats)
    return [repeats // blocks + (number < repeats % blocks) for number in range(blocks)]
