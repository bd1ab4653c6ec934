"""What was measured, as it was measured; and what that comes to: medians, shares of the machine's limits, ratios.

In: what the workers said. Out: :class:`Results`, in which nothing is rounded, averaged or compared, back and forth
between them and `results.json`; :class:`Figures` of each model, and a :class:`Ratio` of each paired run. What was not
measured is None, and never a number.

    results.json
      format                  which version of this layout
      suite, date, flashsloth, threads
      job                     text_tokens, new_tokens, seed
      machine                 a `planning.machine.Machine`; machine_disturbed
      subjects                a list of models, see :class:`ModelResult`; seconds, bytes and operations everywhere
      sittings                a list, see :class:`PairedRun`

    limit of the first token   its operations / the machine's matrix rate in the precision computed in
    limit of a token           the weights, keys and values it reads / the machine's bandwidth
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from flashsloth.errors import BenchmarkError
from flashsloth.files import write_whole

Made = TypeVar("Made")

FORMAT = 2
"""Raised whenever an older program could not read what a newer one writes."""
RESULTS_FILE = "results.json"
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


@dataclass
class Run:
    """One job, from the picture in memory on.

    Attributes:
        stages: stage -> seconds up to the first token; in all, `tokens[0]`.
        tokens: seconds from the start to each token.
        others_share: of the machine's processor time, what others took meanwhile.
        read_bandwidth: bytes a second that the machine read right before; nothing else of it is known to move.
        disturbed: whether that was too much; then patience with it had ended.
    """

    stages: dict[str, float]
    tokens: list[float]
    others_share: float
    read_bandwidth: float
    disturbed: bool = False

    @property
    def first_token(self) -> float:
        """Seconds to the first token."""
        return self.tokens[0]

    @property
    def response(self) -> float:
        """Seconds to the last token."""
        return self.tokens[-1]

    @property
    def token(self) -> float:
        """Seconds a token, after the first: the mean."""
        return (self.tokens[-1] - self.tokens[0]) / (len(self.tokens) - 1)

    @property
    def gaps(self) -> list[float]:
        """Seconds from each token to the next."""
        return [later - earlier for earlier, later in zip(self.tokens, self.tokens[1:], strict=False)]


@dataclass
class ModelResult:
    """What is known of one model.

    Attributes:
        name, title, kind, dtype, precision: see `workload.py`; `precision` is the stored weights'.
        varies: the model that this is another form of (another precision, not sped up); None if of none.
        parameters, visual_tokens, positions: counted.
        flops: stage -> operations up to the first token, counted in the plain model; "step" is one more token's.
        step_bytes: weights that one token reads.
        key_value_bytes: keys and values a position.
        build_seconds: to make it with random weights (or load it), count its operations and warm up.
        peak_bytes: the most memory its process held while it did the jobs.
        runs: single jobs.
        again: jobs about a picture that was asked about before, up to the first token.
        batch_rows, batches: jobs done so many at once; the tokens are steps of all rows.
        discarded: disturbed measurements that were thrown away and repeated.
        in_turns: whether it was made again for every block of its runs, since both did not fit into memory.
        failure: why it was not (wholly) measured.
    """

    name: str
    title: str
    kind: str
    dtype: str
    precision: str
    varies: str | None = None
    parameters: int | None = None
    visual_tokens: int | None = None
    positions: int | None = None
    flops: dict[str, float] = field(default_factory=dict)
    step_bytes: int | None = None
    key_value_bytes: int | None = None
    build_seconds: float | None = None
    peak_bytes: int | None = None
    runs: list[Run] = field(default_factory=list)
    again: list[Run] = field(default_factory=list)
    batch_rows: int | None = None
    batches: list[Run] = field(default_factory=list)
    discarded: int = 0
    in_turns: bool = False
    failure: str | None = None


@dataclass
class PairedRun:
    """Two models that ran alternately: only these runs are compared with one another.

    Attributes:
        reference, other: names of models.
        reference_runs, other_runs: places in their `runs`.
    """

    reference: str
    other: str
    reference_runs: list[int] = field(default_factory=list)
    other_runs: list[int] = field(default_factory=list)


@dataclass
class Results:
    """Everything; see the module's docstring."""

    suite: str
    date: str
    flashsloth: str
    threads: int
    job: dict[str, int]
    machine: dict[str, Any]
    machine_disturbed: bool
    subjects: list[ModelResult] = field(default_factory=list)
    sittings: list[PairedRun] = field(default_factory=list)
    format: int = FORMAT

    def model(self, name: str) -> ModelResult:
        """A model by its name."""
        return next(model for model in self.subjects if model.name == name)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Results:
        """What `dataclasses.asdict` made.

        Raises:
            BenchmarkError: if it is something else, or of another format.
        """
        check_format(stored, FORMAT)
        return make(cls, stored, subjects=_model_result, sittings=partial(make, PairedRun))


def save_results(results: Results, path: Path) -> None:
    """Write `results.json`, whole or not at all."""
    write_whole(path, json.dumps(dataclasses.asdict(results), indent=1) + "\n")


def load_results(path: Path) -> Results:
    """Read `results.json`, or the folder that holds one.

    Raises:
        BenchmarkError: if there is none, or it holds something else.
    """
    return Results.from_dict(read_stored(path, RESULTS_FILE))


def read_stored(path: Path, name: str, version: int | None = None) -> dict[str, Any]:
    """What a file of an earlier run holds, or the file called `name` in a folder.

    Raises:
        BenchmarkError: if there is none, it holds something else, or has another format than `version`.
    """
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise BenchmarkError(f"there is no file {str(file)!r}; expected the {name} of an earlier run")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file} is not JSON ({error}); expected the {name} of an earlier run") from error
    if not isinstance(stored, dict):
        raise BenchmarkError(f"{file} holds a {type(stored).__name__}; expected the {name} of an earlier run")
    if version is not None:
        check_format(stored, version)
    return stored


def check_format(stored: Mapping[str, Any], version: int) -> None:
    """Refuse what another version has written.

    Raises:
        BenchmarkError: if it has.
    """
    if stored.get("format") != version:
        raise BenchmarkError(
            f"results have format {stored.get('format')!r}; expected {version}: measure again with this version"
        )


def make(kind: type[Made], stored: Mapping[str, Any], **items: Callable[[Any], Any]) -> Made:
    """A dataclass of its stored fields; `items` make the items of those that are lists of others.

    Raises:
        BenchmarkError: if a field is missing or unknown, in one line.
    """
    try:
        lists = {name: [of(one) for one in stored[name]] for name, of in items.items() if name in stored}
        return kind(**{**stored, **lists})
    except TypeError as error:
        raise BenchmarkError(f"{kind.__name__.lower()} in the results is damaged ({error}): measure again") from error


def _model_result(stored: Mapping[str, Any]) -> ModelResult:
    return make(ModelResult, stored, **dict.fromkeys(("runs", "again", "batches"), partial(make, Run)))


@dataclass(frozen=True)
class Spread:
    """Several measurements of the same thing, in seconds."""

    median: float
    p95: float


class Figures:
    """What one model's measurements come to.

    Args:
        model: what was measured.
        machine: on what.

    Attributes:
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

    def __init__(self, model: ModelResult, machine: Mapping[str, Any]) -> None:
        runs, rows = model.runs, model.batch_rows
        gap, batch_gap = (_median(some, "token") if some else None for some in (runs, model.batches))
        rate = machine["matrix_rate"].get(model.dtype)
        self.model = model
        self.first_token = _spread([run.first_token for run in runs])
        self.token = _spread([one for run in runs for one in run.gaps])
        self.response = _spread([run.response for run in runs])
        self.tokens_per_second = None if gap is None else 1 / gap
        self.stages = {
            name: statistics.median(sum(run.stages[part] for part in parts) for run in runs)
            for name, parts in SHOWN_STAGES.items()
            if runs
        }
        self.first_flops = sum(model.flops.values()) - model.flops.get(STEP, 0.0) if model.flops else None
        self.first_limit = None if self.first_flops is None or rate is None else self.first_flops / rate
        self.token_limit = _token_limit(model)
        first, limit = self.first_token, self.first_limit
        self.first_share = None if first is None or limit is None else limit / first.median
        self.token_share = None if gap is None or self.token_limit is None else self.token_limit / gap
        self.again = _spread([run.first_token for run in model.again])
        self.batch_rate = None if batch_gap is None or rows is None else rows / batch_gap
        self.batch_response = _spread([run.response for run in model.batches])
        self.disturbed = sum(run.disturbed for run in (*runs, *model.again, *model.batches))


@dataclass(frozen=True)
class Ratio:
    """How many times as long the other takes as the reference, medians of runs that alternated."""

    reference: ModelResult
    other: ModelResult
    first_token: float
    token: float
    response: float


def all_figures(results: Results) -> list[Figures]:
    """Of every model, in the order of the results."""
    return [Figures(model, results.machine) for model in results.subjects]


def ratios(results: Results) -> list[Ratio]:
    """Of every paired run in which both were measured."""
    found = []
    for pair in results.sittings:
        reference, other = results.model(pair.reference), results.model(pair.other)
        ours = [reference.runs[place] for place in pair.reference_runs]
        theirs = [other.runs[place] for place in pair.other_runs]
        if ours and theirs:
            quotients = (_median(theirs, name) / _median(ours, name) for name in ("first_token", "token", "response"))
            found.append(Ratio(reference, other, *quotients))
    return found


def percentile(values: Sequence[float], share: float = PERCENTILE) -> float:
    """The value that `share` of all do not exceed; between two values, in proportion."""
    return float(np.quantile(values, share))


def bandwidth_beside(model: ModelResult) -> float:
    """Bytes a second that the machine read beside a model's runs: their median."""
    return statistics.median(run.read_bandwidth for run in model.runs)


def _token_limit(model: ModelResult) -> float | None:
    """Keys and values of the prompt and of half the answer count: the mean over all tokens."""
    if model.step_bytes is None or model.key_value_bytes is None or model.positions is None or not model.runs:
        return None
    held = model.positions + len(model.runs[0].tokens) / 2
    return (model.step_bytes + held * model.key_value_bytes) / bandwidth_beside(model)


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(statistics.median(values), percentile(values)) if values else None


def _median(runs: Sequence[Run], name: str) -> float:
    return statistics.median(getattr(run, name) for run in runs)
