"""What the measurements come to: medians, 95th percentiles, shares of the machine's limits, ratios.

In: :class:`Results`. Out: :class:`Figures` of each subject, and :class:`Ratio` of each sitting. What was not measured
is None, and never a number.

    limit of the first token   its operations / the machine's matrix rate in the precision computed in
    limit of a token           the weights, keys and values it reads / the machine's bandwidth
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flashsloth.benchmark.results import Results, Run, SubjectResult

PERCENTILE = 0.95
SHOWN_STAGES = {
    "picture": ("prepare",),
    "encoder": ("encoder",),
    "pooling": ("pooling",),
    "projector": ("projector",),
    "prefill": ("language", "query"),
    "other": ("other",),
}
"""What reports call a part of the time, and the stages of the clock that it is made of."""
STEP = "step"


@dataclass(frozen=True)
class Spread:
    """Several measurements of the same thing, in seconds."""

    median: float
    p95: float


@dataclass(frozen=True)
class Figures:
    """One subject's; made by :func:`figures_of`.

    Attributes:
        subject: what they were made of.
        first_token, token, response: seconds; a token's spread is over all gaps of all runs.
        tokens_per_second: one over the median run's mean gap.
        stages: shown stage -> median seconds up to the first token.
        first_flops: operations up to the first token.
        first_limit, token_limit: seconds that the machine needs at least.
        first_share, token_share: of those limits, what is reached: 1 is as fast as can be.
        again: seconds to the first token of another question about the same picture.
        batch_rate: tokens a second of all rows of a batch.
        batch_response: seconds until all rows of a batch are answered.
        disturbed: how many runs that count were disturbed.
    """

    subject: SubjectResult
    first_token: Spread | None
    token: Spread | None
    response: Spread | None
    tokens_per_second: float | None
    stages: dict[str, float]
    first_flops: float | None
    first_limit: float | None
    token_limit: float | None
    first_share: float | None
    token_share: float | None
    again: Spread | None
    batch_rate: float | None
    batch_response: Spread | None
    disturbed: int


@dataclass(frozen=True)
class Ratio:
    """How many times as long the other takes as the reference, medians of runs that alternated."""

    reference: SubjectResult
    other: SubjectResult
    first_token: float
    token: float
    response: float


def all_figures(results: Results) -> list[Figures]:
    """Of every subject, in the order of the results."""
    return [figures_of(subject, results.machine) for subject in results.subjects]


def figures_of(subject: SubjectResult, machine: dict[str, Any]) -> Figures:
    """Of one subject."""
    runs = subject.runs
    first_flops = sum(subject.flops.values()) - subject.flops.get(STEP, 0.0) if subject.flops else None
    first_limit = _first_limit(subject, first_flops, machine)
    token_limit = _token_limit(subject)
    first, token = _spread([run.first_token for run in runs]), _spread([gap for run in runs for gap in run.gaps])
    mean_gap = statistics.median(run.token for run in runs) if runs else None
    batch_gap = statistics.median(run.token for run in subject.batches) if subject.batches else None
    return Figures(
        subject=subject,
        first_token=first,
        token=token,
        response=_spread([run.response for run in runs]),
        tokens_per_second=None if mean_gap is None else 1 / mean_gap,
        stages={name: _stage(runs, parts) for name, parts in SHOWN_STAGES.items()} if runs else {},
        first_flops=first_flops,
        first_limit=first_limit,
        token_limit=token_limit,
        first_share=None if first is None or first_limit is None else first_limit / first.median,
        token_share=None if mean_gap is None or token_limit is None else token_limit / mean_gap,
        again=_spread([run.first_token for run in subject.again]),
        batch_rate=None if batch_gap is None or subject.batch_rows is None else subject.batch_rows / batch_gap,
        batch_response=_spread([run.response for run in subject.batches]),
        disturbed=sum(run.disturbed for run in (*runs, *subject.again, *subject.batches)),
    )


def ratios(results: Results) -> list[Ratio]:
    """Of every sitting in which both were measured."""
    found = []
    for sitting in results.sittings:
        reference, other = results.subject(sitting.reference), results.subject(sitting.other)
        ours = [reference.runs[place] for place in sitting.reference_runs]
        theirs = [other.runs[place] for place in sitting.other_runs]
        if ours and theirs:
            quotients = (_median(theirs, name) / _median(ours, name) for name in ("first_token", "token", "response"))
            found.append(Ratio(reference, other, *quotients))
    return found


def percentile(values: Sequence[float], share: float = PERCENTILE) -> float:
    """The value that `share` of all do not exceed; between two values, in proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _first_limit(subject: SubjectResult, flops: float | None, machine: dict[str, Any]) -> float | None:
    rate = machine["matrix_rate"].get(subject.dtype)
    return None if flops is None or rate is None else flops / rate


def bandwidth_beside(subject: SubjectResult) -> float:
    """Bytes a second that the machine read beside a subject's runs: their median."""
    return statistics.median(run.read_bandwidth for run in subject.runs)


def _token_limit(subject: SubjectResult) -> float | None:
    """Keys and values of the prompt and of half the answer count: the mean over all tokens."""
    if subject.step_bytes is None or subject.key_value_bytes is None or subject.positions is None or not subject.runs:
        return None
    held = subject.positions + len(subject.runs[0].tokens) / 2
    return (subject.step_bytes + held * subject.key_value_bytes) / bandwidth_beside(subject)


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(statistics.median(values), percentile(values)) if values else None


def _stage(runs: Sequence[Run], parts: Sequence[str]) -> float:
    return statistics.median(sum(run.stages[part] for part in parts) for run in runs)


def _median(runs: Sequence[Run], name: str) -> float:
    return statistics.median(getattr(run, name) for run in runs)
