"""What the runs of an experiment found: a file for each, and their means with their spread.

In: an experiment whose runs are done, or some of them. Out: rows, one for each variant.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashsloth.experiment.variants import Experiment, Variant
from flashsloth.whole_file import write_whole

RESULT_FILE, COSTS_FILE = "result.json", "costs.json"
ALL = "all"
SETTINGS = ("num_query_tokens", "embq_layer")


@dataclass(frozen=True)
class Spread:
    """A number over the seeds: its mean and the standard deviation of a sample; one seed has none."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Row:
    """A variant.

    Attributes:
        variant: which.
        seeds: how many of its runs are done.
        shares: right answers of each kind of question, and of all.
        settings: `num_query_tokens` and `embq_layer` of its model.
        cost: as `costs.py` has it; empty where it was not measured.
        memory_gb: the most that training held on its device; None where that is not known.
    """

    variant: Variant
    seeds: int
    shares: dict[str, Spread]
    settings: dict[str, int]
    cost: dict[str, Any]
    memory_gb: Spread | None


def read_rows(experiment: Experiment) -> list[Row]:
    """A row for each variant that has a finished run, in the file's order."""
    costs = _read(experiment.output / COSTS_FILE)
    rows = []
    for variant in experiment.variants:
        found = [_read(experiment.run_folder(variant, seed) / RESULT_FILE) for seed in experiment.seeds]
        done = [result for result in found if result]
        if not done:
            continue
        kinds = dict.fromkeys(kind for result in done for kind in result["shares"])
        shares = {kind: Spread(tuple(result["shares"][kind] for result in done)) for kind in kinds}
        memory = tuple(result["memory_gb"] for result in done if result["memory_gb"] is not None)
        config = variant.config(experiment.model["config"])
        settings = {name: config[name] for name in SETTINGS if name in config}
        cost = costs.get(variant.name, {})
        rows.append(Row(variant, len(done), shares, settings, cost, Spread(memory) if memory else None))
    return rows


def write_json(path: Path, tree: Any) -> None:
    """A file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(tree, indent=1))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


__all__ = ["ALL", "COSTS_FILE", "RESULT_FILE", "Row", "Spread", "read_rows", "write_json"]
