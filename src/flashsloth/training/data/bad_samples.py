"""Bad samples are left out: each is written down once, and the next good one of its source takes its place.

In: a stage's data, and what encodes a sample. Out: a dataset of encoded samples; a JSONL file in the run's folder that
all workers of all processes write to, a line a bad sample (source, index, id, kind, reason); an error once they are
more than the recipe allows. Which sample takes a bad one's place depends on the data alone, so a run that is resumed,
or has more workers, learns from the same. A line is written whole, under a lock of the file, after those of others have
been read; a line that a killed process left unfinished is cut off first.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from flashsloth.files import lock_file
from flashsloth.training.data.mixture import Joined
from flashsloth.training.data.sample import KINDS, BadSampleError, DataError, Sample, Sizes, named

BAD_SAMPLES_FILE = "bad_samples.jsonl"
SHOWN_SAMPLES = 5
"""Bad samples that the error names; the file has them all."""


class TooManyBadSamplesError(DataError):
    """More of the data is bad than the recipe allows."""


class BadSamples:
    """What was left out of the data of one stage.

    Args:
        path: the file, made when the first bad sample is met.
        samples: how many the data has.
        most: share of them that may be bad.
    """

    def __init__(self, path: Path, samples: int, most: float) -> None:
        self.path, self.samples, self.most = path, samples, most
        self._known: set[tuple[str, int]] = set()
        self._read = 0
        """Bytes of the file that `_known` holds."""

    def add(self, error: BadSampleError) -> None:
        """Write a bad sample down, unless it is there.

        Raises:
            TooManyBadSamplesError: if there are more now than may be.
        """
        assert error.where is not None
        key = (error.where.source, error.where.index)
        if key not in self._known:
            self._write(key, {**asdict(error.where), "kind": error.kind, "reason": error.reason})
        if len(self._known) > self.most * self.samples:
            raise TooManyBadSamplesError(self._too_many())

    def count(self) -> int:
        """Bad samples so far, of all processes."""
        if self.path.is_file():
            with open(self.path, "rb") as file:
                self._catch_up(file)
        return len(self._known)

    def entries(self) -> list[dict[str, Any]]:
        """All of the file, in the order of the data."""
        if not self.path.is_file():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is unfinished
        return sorted((json.loads(line) for line in lines), key=lambda entry: (entry["source"], entry["index"]))

    def _write(self, key: tuple[str, int], entry: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            lock_file(file.fileno(), wait=True)  # given back when the file is closed, also by a process that is killed
            self._catch_up(file)
            if key in self._known:
                return
            file.truncate(self._read)
            line = json.dumps(entry, ensure_ascii=True).encode("ascii") + b"\n"
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._known.add(key)
            self._read += len(line)

    def _catch_up(self, file: Any) -> None:
        """Read the whole lines that were written since."""
        file.seek(self._read)
        whole, line_end, _ = file.read().rpartition(b"\n")
        for line in whole.split(b"\n") if line_end else ():
            entry = json.loads(line)
            self._known.add((entry["source"], entry["index"]))
        self._read += len(whole) + len(line_end)

    def _too_many(self) -> str:
        """One line: how many, of what kinds, and the first of them."""
        entries = self.entries()
        kinds = Counter(KINDS[entry["kind"]] for entry in entries)
        listed = ", ".join(f"{count} {name}" for name, count in kinds.most_common())
        named = "; ".join(f"{e['source']} {e['index']} ({e['id']}): {e['reason']}" for e in entries[:SHOWN_SAMPLES])
        share = len(entries) / self.samples
        return (
            f"{len(entries)} of {self.samples} samples are bad ({share:.2%}: {listed}), more than max_bad_fraction "
            f"{self.most:g} allows, and the rest was not looked at; all are listed in {self.path}, the "
            f"first are {named}; look with `flashsloth data check`, mend the data or raise max_bad_fraction"
        )


class GoodSamples(Dataset):
    """Data of which no sample is bad.

    Args:
        data: the stage's samples.
        encode: makes what is batched of a sample; raises BadSampleError or PictureError for a bad one.
        bad_samples: where bad ones are written down.
        left_out: of each part of the data, the numbers of samples that are passed over like bad ones, and not counted.
    """

    def __init__(
        self,
        data: Joined,
        encode: Callable[[Sample], Any],
        bad_samples: BadSamples,
        left_out: Sequence[frozenset[int]] | None = None,
    ) -> None:
        self.data, self.encode, self.bad_samples = data, encode, bad_samples
        self.left_out = [frozenset[int]()] * len(data.parts) if left_out is None else left_out

    def __len__(self) -> int:
        return len(self.data)

    def sizes(self) -> Sizes:
        """As the data's."""
        return self.data.sizes()

    def __getitem__(self, index: int) -> Any:
        """The sample of this number, or the next good one of its source.

        Raises:
            TooManyBadSamplesError: if more are bad than may be.
            DataError: if all of a source are.
        """
        part, local = self.data.locate(index)
        start, count = self.data.start(part), len(self.data.parts[part])
        for step in range(count):
            number = (local + step) % count
            if number in self.left_out[part]:
                continue
            try:
                sample = self.data[start + number]
                with named(sample):
                    return self.encode(sample)
            except BadSampleError as error:
                self.bad_samples.add(error)
        raise DataError(f"every sample of {self.data.parts[part].name} is bad or left out: see {self.bad_samples.path}")
