"""What was measured, as it was measured: nothing here is rounded, averaged or compared.

In: what the workers said. Out: :class:`Results`, and back and forth between them and `results.json`.

    results.json
      format                  which version of this layout
      suite, date, flashsloth, threads
      job                     text_tokens, new_tokens, seed
      machine                 see `machine.py`; machine_disturbed
      subjects                a list, see :class:`SubjectResult`; seconds, bytes and operations everywhere
      sittings                who ran beside whom, and which of their runs
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.whole_file import write_whole

FORMAT = 2
"""Raised whenever an older program could not read what a newer one writes."""
RESULTS_FILE = "results.json"


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
class SubjectResult:
    """What is known of one subject.

    Attributes:
        name, title, kind, dtype, precision: see `subjects.py`; `precision` is the stored weights'.
        varies: the subject that this is another form of (another precision, not sped up); None if of none.
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
        in_turns: whether it was made anew for every block of its runs, since both did not fit into memory.
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
class Sitting:
    """Two subjects that ran alternately: only these runs are compared with one another.

    Attributes:
        reference, other: names of subjects.
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
    subjects: list[SubjectResult] = field(default_factory=list)
    sittings: list[Sitting] = field(default_factory=list)
    format: int = FORMAT

    def subject(self, name: str) -> SubjectResult:
        """A subject by its name."""
        return next(subject for subject in self.subjects if subject.name == name)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Results:
        """What :meth:`to_dict` made.

        Raises:
            BenchmarkError: if it is something else, or of another format.
        """
        found = stored.get("format")
        if found != FORMAT:
            raise BenchmarkError(f"results have format {found!r}; expected {FORMAT}: measure anew with this version")
        fields = dict(stored)
        subjects = [_subject(one) for one in fields.pop("subjects", [])]
        sittings = [_make(Sitting, one) for one in fields.pop("sittings", [])]
        return _make(cls, {**fields, "subjects": subjects, "sittings": sittings})


def save_results(results: Results, path: Path) -> None:
    """Write `results.json`, whole or not at all."""
    write_whole(path, json.dumps(results.to_dict(), indent=1) + "\n")


def load_results(path: Path) -> Results:
    """Read `results.json`, or the folder that holds one.

    Raises:
        BenchmarkError: if there is none, or it holds something else.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise BenchmarkError(f"there is no file {str(file)!r}; expected the {RESULTS_FILE} of an earlier run")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BenchmarkError(f"{file} is no JSON ({error}); expected the {RESULTS_FILE} of an earlier run") from error
    if not isinstance(stored, dict):
        raise BenchmarkError(f"{file} holds a {type(stored).__name__}; expected the {RESULTS_FILE} of an earlier run")
    return Results.from_dict(stored)


def _subject(stored: Any) -> SubjectResult:
    fields = dict(stored)
    for name in ("runs", "again", "batches"):
        fields[name] = [_make(Run, run) for run in fields.get(name, [])]
    return _make(SubjectResult, fields)


def _make(kind: Any, fields: Mapping[str, Any]) -> Any:
    """A dataclass of its fields, or one line about what is wrong with them."""
    try:
        return kind(**fields)
    except TypeError as error:
        raise BenchmarkError(f"{kind.__name__.lower()} in the results is damaged ({error}): measure anew") from error
