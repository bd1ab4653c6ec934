"""The folder of a run: what was asked, and what was answered, by any number of processes at once or one after another.

    predictions.part-3-of-8.jsonl   what the third of eight processes has answered so far
    predictions.jsonl               all answers in the data's order, once each is there; the parts are gone then
    timing.jsonl                    how long it took, which is no part of the answers
    .lock, .part-3-of-8.lock        held by who reads or writes the folder as a whole, and by who is at work

Whatever ends a process, its whole lines count: whoever comes next, as part of any number, answers only what no file
has. So the last file is the same, byte for byte, however often a run was interrupted and by however many it was done.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.predictions import (
    DATA,
    ESCAPED,
    PREDICTIONS,
    check_whole,
    difference,
    drop_torn_line,
    read_predictions,
    write_header,
    write_prediction,
    write_predictions,
)
from flashsloth.evaluation.task import EvaluationError
from flashsloth.files import lock_file

TIMING, LOCK = "timing.jsonl", ".lock"
PARTS, PART_LOCKS = "predictions.part-*-of-*.jsonl", ".part-*-of-*.lock"
RANK, WORLD_SIZE = "RANK", "WORLD_SIZE"
"""The environment of processes that `accelerate launch` and `torchrun` start."""
SYNCED_SECONDS = 2.0
"""Between calls that make sure of the disk: each takes milliseconds, as long as some answers."""


class Part(NamedTuple):
    """One of several that share the work: the third of eight is (3, 8)."""

    number: int = 1
    total: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @property
    def label(self) -> str:
        """In names of files."""
        return f"part-{self.number}-of-{self.total}"


EVERYTHING = Part()


def part_of(text: str | None, environment: Mapping[str, str] = os.environ) -> Part:
    """The part that a process does: "3/8", or what its launcher says, or else everything.

    Raises:
        EvaluationError: for what is no part, or where both say something.
    """
    launched = environment.get(WORLD_SIZE, "1") != "1"
    if text is not None and launched:
        raise EvaluationError(f"--part is {text}, but a launcher has set {WORLD_SIZE}: leave one of them out")
    if text is None:
        text = f"{int(environment.get(RANK, '0')) + 1}/{environment[WORLD_SIZE]}" if launched else "1/1"
    number, separator, count = text.partition("/")
    if not (separator and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise EvaluationError(f"--part is {text!r}; expected K/N, such as 3/8 for the third of eight")
    return Part(int(number), int(count))


class RunFolder:
    """A run's folder, opened by one process for its part; a context that holds the part.

    Args:
        path: the folder, made where it is not there.
        header: of the run's predictions; a folder with another's is refused.
        part: that this process does.

    Attributes:
        path, part: as given.
        answered: id -> what any process had answered when this one came, and what this one has answered since.
    """

    def __init__(self, path: Path, header: dict[str, Any], part: Part) -> None:
        self.path, self.part = path, part
        self.answered: dict[str, Prediction] = {}
        self._header = header
        self._own = path / f"predictions.{part.label}.jsonl"
        self._file: IO[str] | None = None
        self._synced = 0.0
        self._held = ExitStack()

    def __enter__(self) -> RunFolder:
        self.path.mkdir(parents=True, exist_ok=True)
        with self._held:
            with self._alone():
                self._hold_part()
                self.answered = self._read()
            self._held = self._held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        with self._alone():
            self._held.close()

    def add(self, prediction: Prediction) -> None:
        """Write an answer down: it outlasts this process from now on, and the machine within some seconds."""
        if self._file is None:
            self._file = self._open()
        write_prediction(self._file, prediction)
        self.answered[prediction.id] = prediction
        if (now := time.monotonic()) - self._synced > SYNCED_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = now

    def add_timing(self, answers: int, seconds: float) -> None:
        """Write down how long some answers took."""
        with (self.path / TIMING).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": str(self.part), "answers": answers, "seconds": round(seconds, 6)}) + "\n")

    def seconds(self) -> float | None:
        """That an answer took on average; None where nobody wrote it down."""
        answers, seconds = 0, 0.0
        with suppress(FileNotFoundError):
            for line in (self.path / TIMING).read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, LookupError, TypeError):  # a line that was cut off
                    row = json.loads(line)
                    answers, seconds = answers + row["answers"], seconds + row["seconds"]
        return seconds / answers if answers else None

    def merge(self) -> bool:
        """Make one file of all parts if no answer is missing; whether this call did.

        Raises:
            EvaluationError: where an answer is there twice, or is not to what was asked.
        """
        self._close()
        whole = self.path / PREDICTIONS
        with self._alone():
            if whole.is_file() and not list(self.path.glob(PARTS)):
                return False
            found = self._read()
            if len(found) < self._header[DATA]["items"]:
                return False
            if not self._is_whole():
                ordered = sorted(found.values(), key=lambda one: one.place)
                check_whole(ordered, self._header[DATA], str(self.path))
                write_predictions(whole, self._header, ordered)
            for part in self.path.glob(PARTS):
                with suppress(OSError):  # Windows keeps what another process has open
                    part.unlink()
        return True

    def _read(self) -> dict[str, Prediction]:
        """Everything that was answered."""
        parts = [] if self._is_whole() else sorted(self.path.glob(PARTS))
        found: dict[str, Prediction] = {}
        for file in [self.path / PREDICTIONS, *parts]:
            if not file.is_file() or b"\n" not in file.read_bytes():  # ended before its header was written
                continue
            for one in self._predictions(file):
                if one.id in found:
                    raise EvaluationError(
                        f"{self.path} has {one.id!r} twice, the second time in {file.name}: expected it once; remove "
                        "the file that does not belong there"
                    )
                found[one.id] = one
        return found

    def _is_whole(self) -> bool:
        whole = self.path / PREDICTIONS
        return whole.is_file() and len(self._predictions(whole)) == self._header[DATA]["items"]

    def _predictions(self, file: Path) -> list[Prediction]:
        header, predictions = read_predictions(file)
        if said := difference(header, self._header):
            raise EvaluationError(f"{file} is of another run ({said}): choose another folder by --out, or remove it")
        return predictions

    def _open(self) -> IO[str]:
        if self._own.is_file():
            drop_torn_line(self._own)
        file = self._own.open("a", encoding="utf-8", errors=ESCAPED)
        if not file.tell():
            write_header(file, self._header)
        return file

    def _close(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A block that no other process is in, for this folder."""
        with (self.path / LOCK).open("a+b") as file:
            lock_file(file.fileno(), wait=True)
            yield

    def _hold_part(self) -> None:
        """Keep others from this part, and from dividing the work otherwise meanwhile.

        Raises:
            EvaluationError: where another process is at it.
        """
        for path in self.path.glob(PART_LOCKS):
            if not path.stem.endswith(f"-of-{self.part.total}"):
                with path.open("a+b") as file:
                    self._lock(file, path)
                path.unlink(missing_ok=True)
        own = self.path / f".{self.part.label}.lock"
        file = self._held.enter_context(own.open("a+b"))
        self._lock(file, own)
        self._held.callback(own.unlink, missing_ok=True)

    def _lock(self, file: IO[bytes], path: Path) -> None:
        try:
            lock_file(file.fileno(), wait=False)
        except BlockingIOError as error:
            label = path.stem.removeprefix(".").replace("-", " ")
            raise EvaluationError(
                f"another process answers {label} in {self.path}: wait for it, take another part of as many, or "
                "choose another folder by --out"
            ) from error
