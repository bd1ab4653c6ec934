"""What is not the data it is called: files, told from their first bytes; records of what no picture shows.

In: a path, or a record's fields and the words of its questions. Out: nothing, or an error that says what was found and
what to do. A record whose text refers to video, sound or a picture by another model's marks would teach a model to make
it up. Qwen-VL's `<img>path</img>` does name a picture and is read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flashsloth.files import LFS_POINTER
from flashsloth.files import SIGNATURE as LFS_SIGNATURE
from flashsloth.media.limits import shown
from flashsloth.training.data.sample import BadSampleError, DataError

UNPACK = "compressed: unpack it first, samples are read where they stand"
UTF_16 = "UTF-16: save it as UTF-8"
FOREIGN = {
    LFS_SIGNATURE: LFS_POINTER,
    b"\x1f\x8b": UNPACK,
    b"\x28\xb5\x2f\xfd": UNPACK,  # Zstandard
    b"\xfd7zXZ\x00": UNPACK,
    b"BZh": UNPACK,
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
    b"<!DOCTYPE": "a web page, as a download gives that needs a login",
    b"<!doctype": "a web page, as a download gives that needs a login",
    b"<html": "a web page, as a download gives that needs a login",
    b"ARROW1": "Arrow: write it as Parquet, `datasets.Dataset.from_file(...).to_parquet(...)`",
}
"""First bytes -> what the file is, and what to do."""
ARROW_FOLDER = ("dataset_info.json", "dataset_dict.json", "state.json")
"""What `datasets` saves beside Arrow files."""
UNSEEN_FIELDS = tuple(
    f"{medium}{ending}" for medium in ("video", "audio") for ending in ("", "s", "_path", "_url", "_file")
)
"""Fields that name what this model cannot see."""
UNSEEN_ENDINGS = frozenset({".mp4", ".webm", ".avi", ".mkv", ".mov", ".wav", ".mp3", ".flac", ".ogg", ".m4a"})
"""How files end that it cannot see."""
_NAMED_INSIDE = re.compile(r"<img>([^<>\n]+)</img>")
_NUMBER_BEFORE = re.compile(r"Picture \d+: ?$")  # Qwen-VL's words in front of a picture
_FOREIGN = re.compile(
    r"<\|(?:image|img|vision|video|audio)\w*\|>|<(?:ImageHere|image_placeholder|img_placeholder|IMG_CONTEXT)>"
    r"|<image[ _]?\d+>|<(?!image>)(?i:image)>"
)
_UNSEEN = re.compile(
    r"^\s*<(?P<first>video|audio|speech)>|<(?P<last>video|audio|speech)>\s*$"
    r"|<(?P<named>video|vid|audio|speech)>[^<>\n]+</(?P=named)>",  # Qwen-Audio's
    re.MULTILINE,
)


def refuse_foreign(path: Path) -> None:
    """Refuse a file that is none of samples.

    Raises:
        DataError: saying what it is instead.
    """
    with open(path, "rb") as file:
        head = file.read(max(map(len, FOREIGN)))
    for signature, said in FOREIGN.items():
        if head.startswith(signature):
            raise DataError(f"{path} is {said}")


def refuse_arrow(folder: Path) -> None:
    """Refuse a folder that the `datasets` library saved.

    Raises:
        DataError: with what writes Parquet of it.
    """
    if any((folder / name).is_file() for name in ARROW_FOLDER) and any(folder.rglob("*.arrow")):
        raise DataError(
            f"{folder} was saved by `datasets` as Arrow, which is not read: write it as Parquet with "
            f"datasets.load_from_disk({str(folder)!r}).to_parquet('data.parquet'), each split by itself"
        )


def check_fields(record: dict[str, Any]) -> None:
    """Refuse a record that names a video or sound."""
    for field in UNSEEN_FIELDS:
        if record.get(field):
            medium = "video" if field.startswith("video") else "sound"
            raise BadSampleError(f"names {medium} in {field}, which this model cannot take in", "unseen_medium")


def check_words(text: str, place: int) -> None:
    """Refuse words of a question that stand for video, sound, or a picture that nobody can find."""
    if foreign := _FOREIGN.search(text):
        raise BadSampleError(
            f"turn {place} says {shown(foreign.group())}, another model's mark of a picture, expected <image>",
            "placeholder_mismatch",
        )
    unseen = _UNSEEN.search(text)
    if unseen is None:
        return
    medium = unseen["named"] or unseen["first"] or unseen["last"]
    if unseen["named"] or f"</{medium}>" not in text:  # a tag that is closed behind other tags is HTML
        raise BadSampleError(f"turn {place} says <{medium}>, which this model cannot take in", "unseen_medium")


def named_inside(parts: tuple[str | int, ...], pictures: list[Any]) -> tuple[str | int, ...]:
    """Parts of a question with a number for each `<img>path</img>`, whose path is added to the pictures."""
    if not any(isinstance(part, str) and "</img>" in part for part in parts):
        return parts
    found: list[str | int] = []
    for part in parts:
        if isinstance(part, int):
            found.append(part)
            continue
        runs = _NAMED_INSIDE.split(part)  # words, path, words, path, ... words
        for words, path in zip(runs[::2], [*runs[1::2], None], strict=True):
            found.append(words if path is None else _NUMBER_BEFORE.sub("", words))
            if path is not None:
                found.append(len(pictures))
                pictures.append(path.strip())
    return tuple(part for part in found if part != "")
