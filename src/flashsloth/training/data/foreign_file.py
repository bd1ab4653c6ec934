"""Files that are not the data they are called: told from their first bytes, before anything is read of them.

In: a path. Out: nothing, or an error that says what the file is and what to do.
"""

from __future__ import annotations

from pathlib import Path

from flashsloth.lfs_pointer import LFS_POINTER
from flashsloth.lfs_pointer import SIGNATURE as LFS_SIGNATURE
from flashsloth.training.data.sample import DataError

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


__all__ = ["refuse_arrow", "refuse_foreign"]
