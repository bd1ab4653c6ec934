"""From a benchmark's results to the shares that `flashsloth plan` rests on, and how near its plans come to them.

In: :class:`Results` of a run on an idle machine. Out: rows of `efficiency.EFFICIENCIES` and of `FIXED_COSTS`; and, for
every FlashSloth that was measured, what a plan says over what was found.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch

from flashsloth.benchmark.results import Figures, ModelResult, Results, bandwidth_beside
from flashsloth.benchmark.workload import MODELS
from flashsloth.errors import BenchmarkError
from flashsloth.inference.load import DTYPES
from flashsloth.planning.efficiency import EFFICIENCIES, Efficiency, FixedCost, efficiency_of
from flashsloth.planning.latency import ENCODE, POOLING, PREFILL, STEP, Plan, plan
from flashsloth.planning.machine import Machine
from flashsloth.planning.model_shape import find_model

SHARES = {"encoder": ENCODE, "pooling": POOLING, "prefill": PREFILL, "decode": STEP}
"""Field of :class:`Efficiency` -> the stage that reaches it."""
SHOWN = {ENCODE: ("encoder",), POOLING: ("pooling", "projector"), PREFILL: ("prefill",)}
"""Stage of a plan -> what a report calls its parts."""
PUBLISHED, SHIPPED = "flashsloth", "shipped"
"""Kinds of models: of the published size, and the small model."""


def fit_efficiencies(results: Results) -> dict[tuple[str, str], Efficiency]:
    """The shares that FlashSloth reached, by kind of device and type of the stored weights: standard and HD together.

    Raises:
        BenchmarkError: if no FlashSloth of the published size was measured.
    """
    found: dict[tuple[str, str], list[Efficiency]] = defaultdict(list)
    for model in _measured(results, PUBLISHED):
        planned, key = plan_of(model, results), _key(model, results)
        shares = fit_shares(planned, measured_seconds(Figures(model, results.machine)))
        row = _row(model, results, shares["decode"])
        if row is None:
            row = EFFICIENCIES[key].row if key in EFFICIENCIES else 0.0
        found[key].append(Efficiency(**shares, row=row))
    if not found:
        raise BenchmarkError("no FlashSloth of the published size was measured; expected one: flashsloth bench")
    names = [field.name for field in dataclasses.fields(Efficiency)]
    return {
        key: Efficiency(**{name: statistics.mean(getattr(one, name) for one in several) for name in names})
        for key, several in found.items()
    }


def fit_fixed_cost(results: Results) -> FixedCost:
    """What starting a layer and choosing a token take, of the small model, which does little else.

    Raises:
        BenchmarkError: if the small model was not measured.
    """
    model = next(_measured(results, SHIPPED), None)
    known = None if model is None else efficiency_of(*_key(model, results))
    if model is None or known is None:
        raise BenchmarkError("the small model was not measured where shares are known; run flashsloth bench --quick")
    shares, fixed = known
    planned, seconds = plan_of(model, results), measured_seconds(Figures(model, results.machine))
    look, step = next(stage for stage in planned.stages if stage.name == ENCODE), planned.step
    layer = max(0.0, seconds[ENCODE] - look.limit_seconds / shares.encoder) / look.layers
    token = max(0.0, seconds[STEP] - step.limit_seconds / shares.decode - step.layers * layer)
    return dataclasses.replace(fixed, layer=layer, token=token)


def compare(results: Results) -> dict[str, dict[str, float]]:
    """BenchmarkModel -> what a plan says over what was measured: 1 is right, 0.8 to 1.2 within 20 %."""
    quotients = {}
    for model in (*_measured(results, PUBLISHED), *_measured(results, SHIPPED)):
        planned, found = plan_of(model, results), Figures(model, results.machine)
        following = planned.next_question
        pairs = {
            "first token": (planned.first_token_seconds, found.first_token and found.first_token.median),
            "tokens a second": (planned.tokens_per_second, found.tokens_per_second),
            "whole answer": (planned.response_seconds, found.response and found.response.median),
            "another question": (following and following.seconds, found.again and found.again.median),
            "memory": (planned.memory.total, model.peak_bytes),
        }
        if model.batch_rows:
            several = plan_of(model, results, batch=model.batch_rows)
            pairs["tokens a second, batch"] = (several.tokens_per_second, found.batch_rate)
        quotients[model.name] = {what: said / was for what, (said, was) in pairs.items() if said and was}
    return quotients


def plan_of(model: ModelResult, results: Results, batch: int = 1) -> Plan:
    """What a plan says of a model, on the machine as it was measured beside it."""
    spec = MODELS[model.name]
    overrides = {"image_grid": spec.grid} if spec.kind == PUBLISHED else {}
    return plan(
        find_model(PUBLISHED if spec.kind == PUBLISHED else None, **overrides).config,
        machine=dataclasses.replace(Machine.from_dict(results.machine), read_bandwidth=bandwidth_beside(model)),
        dtype=DTYPES[spec.dtype],
        quantize=spec.quantize,
        text_tokens=results.job["text_tokens"],
        new_tokens=results.job["new_tokens"],
        batch=batch,
    )


def measured_seconds(figures: Figures) -> dict[str, float]:
    """Stage of a plan -> median seconds."""
    assert figures.tokens_per_second is not None  # only measured models come here
    seconds = {stage: sum(figures.stages[part] for part in parts) for stage, parts in SHOWN.items()}
    return {**seconds, STEP: 1 / figures.tokens_per_second}


def fit_shares(planned: Plan, measured: Mapping[str, float]) -> dict[str, float]:
    """The shares with which a plan would have said what was then measured, one row at a time.

    Raises:
        BenchmarkError: if a stage took no longer than its fixed part.
    """
    stages = {stage.name: stage for stage in (*planned.stages, planned.step)}
    shares = {}
    for field, name in SHARES.items():
        fixed = stages[name].fixed_seconds or 0.0
        if measured[name] <= fixed:
            raise BenchmarkError(
                f"{name} took {measured[name]} s, no longer than its fixed part, {fixed} s: fit FIXED_COSTS first"
            )
        shares[field] = stages[name].limit_seconds / (measured[name] - fixed)
    return shares


def _measured(results: Results, kind: str) -> Iterator[ModelResult]:
    """Models of a kind, sped up as `load` does."""
    for model in results.subjects:
        spec = MODELS.get(model.name)
        if spec is not None and spec.kind == kind and spec.optimize and model.runs:
            yield model


def _key(model: ModelResult, results: Results) -> tuple[str, str]:
    return torch.device(results.machine["device"]).type, model.precision


def _row(model: ModelResult, results: Results, decode: float) -> float | None:
    """What each row beyond the first adds to a step; None where no batch was measured."""
    if not model.batches or model.batch_rows is None or model.batch_rows < 2:
        return None
    step = plan_of(model, results, batch=model.batch_rows).step
    seconds = statistics.median(run.token for run in model.batches) - (step.fixed_seconds or 0.0)
    slower = seconds * decode / step.limit_seconds
    return max(0.0, slower - 1) / (model.batch_rows - 1)
