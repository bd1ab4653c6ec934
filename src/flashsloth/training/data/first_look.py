"""A look at some of a source's samples, so that what is wrong with all of it is said once and not of each sample.

In: a dataset of records. Out: nothing, or an error: none of the pictures is where pictures are looked for, or
none of the records can be learned from. Where samples lie in blocks the first are looked at, else some from all over
the file.
"""

from __future__ import annotations

import numpy as np

from flashsloth.media.limits import shown
from flashsloth.training.data.layouts import check_record
from flashsloth.training.data.record_data import RecordData
from flashsloth.training.data.sample import BadSampleError, DataError

LOOKED_AT = 256
"""Records, at most."""
ENOUGH = 16
"""Records of which none has its pictures: the folder is wrong."""
LEAST = 4
"""Of fewer, nothing is concluded."""


def look(data: RecordData) -> None:
    """Look at some of the records.

    Raises:
        DataError: if all of them lack the same.
    """
    bad: list[BadSampleError] = []
    lacking: list[BadSampleError] = []
    looked = min(LOOKED_AT, len(data))
    last = looked if data.blocks is not None else len(data)
    for index in np.linspace(0, last - 1, looked).astype(int).tolist():
        try:
            said = data.conversation(index, check_record(data.record(index)))
        except BadSampleError as error:
            bad.append(error)
            continue
        names = [picture for picture in said.pictures if isinstance(picture, str)]
        if not names:
            continue
        try:
            for name in names:
                data.find(name)
            return
        except BadSampleError as error:
            if error.kind != "missing_picture":
                return
            lacking.append(error)
        if len(lacking) >= ENOUGH:
            break
    if len(lacking) >= LEAST:
        raise DataError(
            f"{data.name}: none of {len(lacking)} samples with pictures has them in {shown(str(data.images))}: "
            f"say where they are (images:, or --images); the first: {lacking[0].reason}"
        )
    if len(bad) == looked >= LEAST:
        raise DataError(f"{data.name}: none of {looked} samples can be learned from; the first {bad[0].reason}")


__all__ = ["look"]
