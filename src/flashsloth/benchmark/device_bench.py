"""An accelerator's busy side: throughput, training steps, and what the device is; beside the suite of single answers.

In: subjects and how much of each. Out: :class:`DeviceResults`, back and forth between them and `device.json`.

    device.json
      format, date, flashsloth
      facts           before the first measurement and after the last one: driver, clocks, power, versions
      starts          subject -> seconds to make it (recording included), of its first answer, of its second
      throughput      a list, see `throughput.py`
      agreement       a list, see `agreement.py`; or subject -> why there is none, in `failures`
      training        a list, see `device_training.py`

Every subject has a process of its own. One that fails is reported, and the others are measured.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashsloth.benchmark.agreement import Agreement
from flashsloth.benchmark.device_training import DeviceTraining
from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.benchmark.job import StandardJob
from flashsloth.benchmark.subjects import SubjectSpec
from flashsloth.benchmark.suite import Worker
from flashsloth.benchmark.throughput import Throughput
from flashsloth.benchmark.worker_process import WorkerError
from flashsloth.version import __version__
from flashsloth.whole_file import write_whole

FORMAT = 1
DEVICE_FILE = "device.json"
OWN = "flashsloth"
"""The kind of subjects that have a fast path."""
SHORT_ANSWER, LONG_ANSWER = 3, 64
"""Tokens: a choice or a word, and a sentence or two."""
STAGE_TEXT = {"alignment": 32, "instruction": 310}
"""Stage -> text of a sample: about a caption's; what makes 400 positions of FlashSloth's stage 2."""


@dataclass(frozen=True)
class DeviceSettings:
    """What is measured.

    Attributes:
        device: where.
        job: of single answers; its text is the throughput's too.
        pictures: of each throughput measurement.
        rows: answers at once, at most.
        answers: tokens of an answer, for one measurement each.
        stage_rows: training stage -> samples a step.
        steps: of training that are timed.
        size: FlashSloth's in training, as `flashsloth plan` takes it; None for the small model.
    """

    device: str
    job: StandardJob
    pictures: int = 256
    rows: int = 64
    answers: tuple[int, ...] = (SHORT_ANSWER, LONG_ANSWER)
    stage_rows: dict[str, int] = field(default_factory=lambda: {"alignment": 32, "instruction": 16})
    steps: int = 10
    size: str | None = "flashsloth"

    def __post_init__(self) -> None:
        for name in ("pictures", "rows", "steps"):
            if getattr(self, name) < 1:
                raise BenchmarkError(f"{name} is {getattr(self, name)}; expected at least 1")


@dataclass
class DeviceResults:
    """Everything; see the module's docstring."""

    date: str
    flashsloth: str
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    starts: dict[str, dict[str, float]] = field(default_factory=dict)
    throughput: list[Throughput] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    training: list[DeviceTraining] = field(default_factory=list)
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> DeviceResults:
        """What :meth:`to_dict` made.

        Raises:
            BenchmarkError: if it is something else.
        """
        if stored.get("format") != FORMAT:
            raise BenchmarkError(f"device results have format {stored.get('format')!r}; expected {FORMAT}")
        fields = dict(stored)
        try:
            throughput = [Throughput(**one) for one in fields.pop("throughput")]
            training = [DeviceTraining(**{**one, "seconds": tuple(one["seconds"])}) for one in fields.pop("training")]
            agreement = [Agreement(**one) for one in fields.pop("agreement")]
            return cls(**fields, throughput=throughput, agreement=agreement, training=training)
        except (KeyError, TypeError) as error:
            raise BenchmarkError(f"device results are damaged ({error}): measure anew") from error


def measure_device(
    specs: Sequence[SubjectSpec],
    trained: Sequence[str],
    settings: DeviceSettings,
    start: Callable[[], Worker],
    say: Callable[[str], None],
) -> DeviceResults:
    """Measure throughput of `specs` and training steps of `trained`, in a process each."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    results = DeviceResults(date, __version__)
    results.facts["before"] = _asked(start, "facts")
    for spec in specs:
        say(f"{spec.title}: many pictures")
        _measure_throughput(spec, settings, start, results)
    for spec in specs:
        if spec.kind == OWN:
            say(f"{spec.title}: beside float32")
            _measure_agreement(spec, settings, start, results)
    for stage, rows in settings.stage_rows.items():
        for name in trained:
            say(f"{name}: training, {stage}")
            arguments = {"name": name, "stage": stage, "rows": rows, "text_tokens": STAGE_TEXT[stage]}
            try:
                found = _asked(
                    start,
                    "train",
                    **arguments,
                    steps=settings.steps,
                    device=settings.device,
                    size=settings.size,
                )
                results.training.append(DeviceTraining(**{**found, "seconds": tuple(found["seconds"])}))
            except WorkerError as error:
                results.training.append(DeviceTraining(name, stage, rows, failure=str(error)))
    results.facts["after"] = _asked(start, "facts")
    return results


def save_device_results(results: DeviceResults, folder: Path) -> Path:
    """Write `device.json`."""
    path = folder / DEVICE_FILE
    write_whole(path, json.dumps(results.to_dict(), indent=1) + "\n")
    return path


def load_device_results(path: Path) -> DeviceResults:
    """Read `device.json`, or the folder that holds one.

    Raises:
        BenchmarkError: if there is none, or it holds something else.
    """
    file = path / DEVICE_FILE if path.is_dir() else path
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file} is no {DEVICE_FILE} of an earlier run ({error})") from error
    if not isinstance(stored, dict):
        raise BenchmarkError(f"{file} holds a {type(stored).__name__}; expected the {DEVICE_FILE} of an earlier run")
    return DeviceResults.from_dict(stored)


def _measure_throughput(
    spec: SubjectSpec, settings: DeviceSettings, start: Callable[[], Worker], results: DeviceResults
) -> None:
    worker = start()
    try:
        job = settings.job.to_dict()
        results.starts[spec.name] = worker.request(
            "build", spec=dataclasses.asdict(spec), job=job, device=settings.device
        )
        for new_tokens in settings.answers:
            arguments = {"new_tokens": new_tokens, "pictures": settings.pictures, "rows": settings.rows}
            results.throughput.append(Throughput(**worker.request("throughput", **arguments)))
    except WorkerError as error:
        missing = settings.answers[sum(one.subject == spec.name for one in results.throughput) :]
        results.throughput += [
            Throughput(spec.name, new_tokens, settings.pictures, settings.rows, failure=str(error))
            for new_tokens in missing
        ]
    finally:
        worker.close()


def _measure_agreement(
    spec: SubjectSpec, settings: DeviceSettings, start: Callable[[], Worker], results: DeviceResults
) -> None:
    asked = {"spec": dataclasses.asdict(spec), "job": settings.job.to_dict(), "device": settings.device}
    try:
        results.agreement.append(Agreement(**_asked(start, "agree", **asked)))
    except WorkerError as error:
        results.failures[spec.name] = str(error)


def _asked(start: Callable[[], Worker], do: str, **arguments: Any) -> Any:
    """One request's result, of a worker that is there for it alone."""
    worker = start()
    try:
        return worker.request(do, **arguments)
    finally:
        worker.close()


__all__ = [
    "DEVICE_FILE",
    "LONG_ANSWER",
    "SHORT_ANSWER",
    "DeviceResults",
    "DeviceSettings",
    "load_device_results",
    "measure_device",
    "save_device_results",
]
