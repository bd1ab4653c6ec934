"""Which file a picture's name means: the one that is named, or, where that is not there, the same with another ending.

Published lists name `x.jpg` where the download gave `x.png` or `x.gif`. What a file holds is told from its content when
it is opened (`media/`), never from its name.
"""

from __future__ import annotations

import os
from pathlib import Path

from flashsloth.training.data.sample import BadSampleError

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
SPELLINGS = (*ENDINGS, *(ending.upper() for ending in ENDINGS))


def find_picture(folder: Path, name: object) -> Path:
    """The file that is meant.

    Raises:
        BadSampleError: if there is none, under any ending.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise BadSampleError(f"names {name!r} as a picture, expected a path", "missing_picture")
    path = folder / name
    if os.path.isfile(path):
        return path
    stem, ending = os.path.splitext(path)
    if ending.lower() in ENDINGS:
        for other in SPELLINGS:
            if os.path.isfile(stem + other):
                return Path(stem + other)
    raise BadSampleError(f"{str(path)!r}: no such file, nor with another ending", "missing_picture")


__all__ = ["ENDINGS", "find_picture"]
