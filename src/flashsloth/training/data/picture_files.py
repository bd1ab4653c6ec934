"""Which file a picture's name means: the one that is named, or, where that is not there, the same with another ending.

Published lists name `x.jpg` where the download gave `x.png` or `x.gif`. What a file holds is told from its content when
it is opened (`media/`), never from its name. A picture may also be written down in the record itself, as a data URL or
as base64 alone; nothing is fetched from a network.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from flashsloth.media import PictureError, data_url_bytes
from flashsloth.media.limits import shown
from flashsloth.training.data.conversation import unexpected
from flashsloth.training.data.sample import BadSampleError

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
DATA_SCHEME, FILE_SCHEME = "data:", "file://"
BASE64_BEGINNINGS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
"""How JPEG, PNG, GIF and WebP begin in base64."""
LEAST_BASE64 = 64
"""Characters: a shorter text is a name."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
SPELLINGS = (*ENDINGS, *(ending.upper() for ending in ENDINGS))


def find_picture(folder: Path, name: object) -> Path | bytes:
    """The file that is meant, or the picture itself where that is what the name is.

    Raises:
        BadSampleError: if there is no such file, under any ending, or it would have to be fetched.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise BadSampleError(f"names {unexpected(name)} as a picture, expected a path", "missing_picture")
    if (written := _written_down(name)) is not None:
        return written
    if scheme := _SCHEME.match(name):
        if scheme.group().lower() != FILE_SCHEME:
            raise BadSampleError(
                f"{shown(name)} is a URL, and nothing is fetched: download the pictures and name the files",
                "missing_picture",
            )
        name = unquote(name[len(FILE_SCHEME) :])
    path = folder / name
    if os.path.isfile(path):
        return path
    stem, ending = os.path.splitext(path)
    if ending.lower() in ENDINGS:
        for other in SPELLINGS:
            if os.path.isfile(stem + other):
                return Path(stem + other)
    raise BadSampleError(f"{shown(str(path))}: no such file, nor with another ending", "missing_picture")


def _written_down(name: str) -> bytes | None:
    """The bytes of a data URL, or of a picture in base64; None for a name."""
    if name[: len(DATA_SCHEME)].lower() != DATA_SCHEME:
        if len(name) < LEAST_BASE64 or "." in name or not name.startswith(BASE64_BEGINNINGS):
            return None
        name = f"{DATA_SCHEME}image;base64,{name}"
    try:
        return data_url_bytes(name)
    except PictureError as error:
        raise BadSampleError(str(error), "unreadable_picture") from error


__all__ = ["ENDINGS", "find_picture"]
