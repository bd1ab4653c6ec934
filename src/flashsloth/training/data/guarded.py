"""Samples ready to be batched, of data that may have bad ones: those are written down, and the next good one stands in.

In: a stage's data, and what encodes a sample. Out: a map-style dataset of encoded samples. What stands in for a bad one
depends on the data alone, so a run that is resumed, or has more workers, learns from the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from flashsloth.training.data.ledger import Ledger
from flashsloth.training.data.mixture import Joined
from flashsloth.training.data.sample import BadSampleError, DataError, Sample, Sizes, named


class GuardedData(Dataset):
    """Data of which no sample is bad.

    Args:
        data: the stage's samples.
        encode: makes what is batched of a sample; raises BadSampleError or PictureError for a bad one.
        ledger: where bad ones are written down.
        left_out: of each part of the data, the numbers of samples that are passed over like bad ones, and not counted.
    """

    def __init__(
        self,
        data: Joined,
        encode: Callable[[Sample], Any],
        ledger: Ledger,
        left_out: Sequence[frozenset[int]] | None = None,
    ) -> None:
        self.data, self.encode, self.ledger = data, encode, ledger
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
                self.ledger.add(error)
        raise DataError(f"every sample of {self.data.parts[part].name} is bad or left out: see {self.ledger.path}")


__all__ = ["GuardedData"]
