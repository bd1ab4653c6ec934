"""Training's memory and time as two tables, of what was measured and of what was counted.

In: :class:`TrainingResults`. Out: Markdown; or files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from flashsloth.benchmark.report import markdown_table
from flashsloth.benchmark.training import (
    ALL_TOKENS,
    FLASHSLOTH,
    RESULTS_NAME,
    STAGE_NAMES,
    Counted,
    Measured,
    TrainingResults,
)
from flashsloth.files import write_whole

REPORT_NAME = "training.md"
GIGA = 1e9
MEASURED = ["stage", "", "positions", "s per sample", "resident set", "tensors", "of these, in the step"]
COUNTED = [
    "stage", "checkpointing", "samples", "", "positions", "weights, gradients, optimizer", "activations", "in all",
]  # fmt: skip


def markdown(results: TrainingResults) -> str:
    """Two tables and what they rest on."""
    machine, first = results.machine, results.measured[0].job
    depth = "all layers" if first["layers"] is None else f"{first['layers']} layers of each tower"
    lines = [
        f"Measured: {machine['name']}, {machine['threads']} threads, torch {machine['torch']}; {depth}, "
        f"{first['rows']} samples a step, {first['dtype']}, AdamW; {machine['disturbed']}.",
        "",
        markdown_table(MEASURED, list(_measured_rows(results.measured))),
        "",
        "Counted, not measured: full depth, float32 weights and bfloat16 autocast, one device.",
        "",
        markdown_table(COUNTED, list(_counted_rows(results.counted))),
    ]
    return "\n".join(lines) + "\n"


def write_training_report(results: TrainingResults, folder: Path) -> list[Path]:
    """JSON and Markdown; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / RESULTS_NAME, folder / REPORT_NAME]
    write_whole(files[0], json.dumps(dataclasses.asdict(results), indent=1))
    write_whole(files[1], markdown(results))
    return files


def _measured_rows(measured: list[Measured]) -> Iterator[list[str]]:
    for stage in STAGE_NAMES:
        by_model = {one.job["subject"]: one for one in measured if one.job["stage"] == stage}
        for one in by_model.values():
            sizes = (one.found["resident_bytes"], one.tensor_bytes, one.found["step_bytes"])
            cells = (
                str(one.found["positions"]),
                f"{one.seconds_per_sample:.3g}",
                *(f"{s / GIGA:.2f} GB" for s in sizes),
            )
            yield [stage, one.job["subject"], *cells]
        ours, theirs = by_model[FLASHSLOTH], by_model[ALL_TOKENS]
        pairs = [
            (one.seconds_per_sample, one.found["resident_bytes"], one.tensor_bytes, one.found["step_bytes"])
            for one in (ours, theirs)
        ]
        yield [stage, "less", "", *map(_less, *pairs)]


def _counted_rows(counted: list[Counted]) -> Iterator[list[str]]:
    for stage in STAGE_NAMES:
        for again in (False, True):
            alike = [one for one in counted if (one.stage, one.activation_checkpointing) == (stage, again)]
            by_model = {one.subject: one for one in alike}
            recomputed = "yes" if again else "no"
            for one in by_model.values():
                fixed = one.weights + one.gradients + one.optimizer
                sizes = (f"{size / GIGA:.1f} GB" for size in (fixed, one.activations, one.total))
                yield [stage, recomputed, str(one.rows), one.subject, str(one.positions), *sizes]
            ours, theirs = by_model[FLASHSLOTH], by_model[ALL_TOKENS]
            less = _less(ours.activations, theirs.activations), _less(ours.total, theirs.total)
            yield [stage, recomputed, "", "less", "", "", *less]


def _less(ours: float, theirs: float) -> str:
    return f"{1 - ours / theirs:.0%}"
