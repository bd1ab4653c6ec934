"""Who is measured when: pairs of an old and a new tree, which take turns as `compare_speed.py` says.

In: what is compared, and how to start a tree's worker. Out: a :class:`Comparison` of each workload.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed_result import LOAD, NEW, OLD, TITLES, WALL, Comparison, table

from flashsloth.benchmark.timing import CpuContention, Patience, own_seconds
from flashsloth.benchmark.worker_process import WorkerProcess

WARM_UPS = 3
LEAST_SECONDS = 0.5
"""A measurement repeats its workload so long, and takes the median."""
SETTLE_SECONDS = 0.3
"""Before a measurement: threads of the process that worked before may still be spinning for work."""


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        model: one of `KINDS`.
        quantize: as `load` takes it.
        device: as `load` takes it.
        pairs: of measurements of each workload.
        names: of workloads, and of loading.
        pictures: of the workload with very many of them.
        side_by_side: whether both models stay in memory.
        clock: what the speed gate is held by.
    """

    model: str
    quantize: str | None
    device: str
    pairs: int
    names: tuple[str, ...]
    pictures: int
    side_by_side: bool
    clock: str = WALL


class Comparer:
    """Measures pairs.

    Args:
        settings: what is compared.
        start: starts a tree's worker, for as long as the `with` block lasts.
        folder: the checkpoint.
        say: is told what is done next.
    """

    def __init__(
        self, settings: Settings, start: Callable[[str], Any], folder: Path, say: Callable[[str], None]
    ) -> None:
        self._settings, self._start, self._folder, self._say = settings, start, folder, say
        self.comparisons = {name: Comparison(name, settings.clock) for name in settings.names}
        self._repetitions: dict[str, int] = {}
        self.about: dict[str, Any] = {}

    def run(self) -> None:
        """Measure everything."""
        if self._settings.side_by_side:
            self._side_by_side()
        else:
            self._one_at_a_time()

    def _side_by_side(self) -> None:
        with ExitStack() as stack:
            workers = {tree: stack.enter_context(self._start(tree)) for tree in (OLD, NEW)}
            watch = CpuContention(own=lambda: own_seconds() + sum(worker.request("cpu") for worker in workers.values()))
            for tree, worker in workers.items():
                self._prepare(tree, worker)
            for name, comparison in self.comparisons.items():
                self._say(TITLES[name])
                patience = Patience(self._settings.pairs)
                for worker in workers.values():
                    self._warm_up(worker, name)
                number = 0
                while len(comparison.old) < self._settings.pairs:
                    number += 1
                    pair, share = self._pair(workers, name, number, watch)
                    if not patience.discards(share):
                        comparison.add(pair, share)
                comparison.discarded = patience.discarded
                self._say(table([comparison]).splitlines()[-1])  # a run that is stopped has shown what it measured

    def _pair(
        self, workers: dict[str, WorkerProcess], name: str, number: int, watch: CpuContention
    ) -> tuple[dict[str, dict[str, Any]], float]:
        """A measurement of each tree; and what other programs took in the more disturbed one."""
        pair, shares = {}, []
        for tree in _order(number):
            time.sleep(SETTLE_SECONDS)
            since = watch.read()
            pair[tree] = self._measure(workers[tree], name, number)
            shares.append(watch.others_share(since))
        return pair, max(shares)

    def _one_at_a_time(self) -> None:
        for number in range(1, self._settings.pairs + 1):
            found: dict[str, dict[str, tuple[dict[str, Any], float]]] = {}
            for tree in _order(number):
                with self._start(tree) as worker:
                    found[tree] = self._whole_process(tree, worker, number)
            for name, comparison in self.comparisons.items():
                pair = {tree: found[tree][name][0] for tree in (OLD, NEW)}
                comparison.add(pair, max(found[tree][name][1] for tree in (OLD, NEW)))

    def _whole_process(self, tree: str, worker: WorkerProcess, number: int) -> dict[str, tuple[dict[str, Any], float]]:
        """Every workload once: its measurement, and what other programs took meanwhile."""
        watch = CpuContention(own=lambda: own_seconds() + worker.request("cpu"))
        since = watch.read()
        self._say(f"pair {number}, {tree}: {TITLES[LOAD]}")
        loaded = self._prepare(tree, worker)
        found = {LOAD: (loaded, watch.others_share(since))}
        for name in self.comparisons:
            if name != LOAD:
                self._say(f"pair {number}, {tree}: {TITLES[name]}")
                found[name] = self._measure_first(worker, name, number, watch)
        return found

    def _measure_first(
        self, worker: WorkerProcess, name: str, number: int, watch: CpuContention
    ) -> tuple[dict[str, Any], float]:
        """What this process had not to do before: a workload that is over soon is warmed up, a long one is not."""
        since = watch.read()
        measured = self._warm_up(worker, name, number, times=1)
        if self._repetitions[name] > 1:
            since = watch.read()
            measured = self._measure(worker, name, number + self._settings.pairs)
        return measured, watch.others_share(since)

    def _warm_up(self, worker: WorkerProcess, name: str, number: int = 0, times: int = WARM_UPS) -> dict[str, Any]:
        """Do it some times; how long that takes says how often later measurements of both trees repeat it."""
        measured = self._measure(worker, name, number, repetitions=times)
        self._repetitions.setdefault(name, math.ceil(LEAST_SECONDS / measured["seconds"]))
        return measured

    def _prepare(self, tree: str, worker: WorkerProcess) -> dict[str, Any]:
        """Load, and answer for the first time."""
        self.about[tree] = worker.request("about")
        loaded = self._measure(worker, LOAD, number=0, repetitions=1)
        worker.request("check")
        return loaded

    def _measure(self, worker: WorkerProcess, name: str, number: int, repetitions: int | None = None) -> dict[str, Any]:
        settings = self._settings
        times = self._repetitions[name] if repetitions is None else repetitions
        if name == LOAD:
            wanted = {"folder": str(self._folder), "device": settings.device, "quantize": settings.quantize}
            loaded: dict[str, Any] = worker.request("load", repetitions=times, **wanted)
            return loaded
        run: dict[str, Any] = worker.request(
            "run", workload=name, number=number, repetitions=times, pictures=settings.pictures
        )
        return run


def _order(number: int) -> tuple[str, str]:
    """Who comes first in a pair."""
    return (OLD, NEW) if number % 2 else (NEW, OLD)
