"""What a file of samples is, told from its name: for commands that are given one without a recipe.

In: a file, a folder, or a pattern. Out: a DataSource.
"""

from __future__ import annotations

import re
from pathlib import Path

from flashsloth.training.data.foreign_file import refuse_arrow
from flashsloth.training.data.sample import DataError
from flashsloth.training.data_source import DataSource

KINDS_BY_ENDING = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".tar": "shards",
}
COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip")
_PATTERN_END = re.compile(r"[}\]*?]+$")


def source_of(text: str, images: str | None = None) -> DataSource:
    """The source that a file, a folder of Parquet files or shards, or a pattern of them is.

    Raises:
        DataError: if its name does not tell.
    """
    path = Path(text)
    if path.is_dir():
        refuse_arrow(path)
        endings = [e for e in (".parquet", ".tar") if any(path.rglob(f"*{e}"))]
        if len(endings) != 1:
            found = " and ".join(f"*{ending}" for ending in endings) or "neither"
            raise DataError(f"{text} is a folder with {found}: expected *.parquet or *.tar in it, or name a file")
        kind = KINDS_BY_ENDING[endings[0]]
    else:
        ending = Path(_PATTERN_END.sub("", text)).suffix.lower()
        if ending in COMPRESSED:
            raise DataError(f"{text} is compressed: unpack it first, samples are read where they stand")
        if ending == ".arrow":
            refuse_arrow(path.parent)
        if ending not in KINDS_BY_ENDING:
            raise DataError(f"{text} ends with {ending!r}, expected one of {', '.join(KINDS_BY_ENDING)}")
        kind = KINDS_BY_ENDING[ending]
    if kind == "shards" and images is not None:
        raise DataError(f"{text} is of shards, which bring their pictures: leave the folder of pictures out")
    return DataSource(**{kind: text, "images": images})  # type: ignore[arg-type]


__all__ = ["source_of"]
