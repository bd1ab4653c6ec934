"""The files of benchmarks: the publishers' own by their names, and any Parquet file with the hub's columns.

In: a folder. Out: rows, and pictures that are read when they are needed. Parquet is read by pyarrow, which is an extra.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from flashsloth.evaluation.item import Picture
from flashsloth.evaluation.task import EvaluationError, NoDataError, Task
from flashsloth.files import LFS_POINTER, is_lfs_pointer

T = TypeVar("T")
KEPT_BYTES = 128 * 2**20
"""Of encoded pictures that were read and may be asked for again."""
DEFAULT_CONFIG = "data"
"""The folder where the hub has the files of a data set without configs."""
KINDS: dict[Any, str] = {str: "a text", list: "a list", dict: "an object"}
"""Types, in plain words."""
SHOWN = 120
"""Characters of a row that an error quotes."""
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".JPG", ".PNG")


def read_json_file(path: Path) -> Any:
    """A JSON file, or JSON lines as a list.

    Raises:
        EvaluationError: for anything else, naming the file and the line.
    """
    if is_lfs_pointer(path):
        raise EvaluationError(f"{path} is {LFS_POINTER}")
    try:
        text = path.read_text(encoding="utf-8")
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return [_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    except (UnicodeDecodeError, OSError, RecursionError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}): copy or download it again") from error


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise EvaluationError(f"{path}, line {number}, is not JSON ({error.msg}): download the file again") from error


def rows_with(rows: Any, keys: Sequence[str], path: Path) -> list[dict[str, Any]]:
    """Rows that all have some keys.

    Raises:
        EvaluationError: for what is not a list of objects, and the first row without one of the keys.
    """
    if not isinstance(rows, list):
        raise EvaluationError(f"{path} holds {type(rows).__name__}, expected a list of objects: is it the right file?")
    for number, row in enumerate(rows):
        found = set(row) if isinstance(row, dict) else set()
        if missing := [key for key in keys if key not in found]:
            raise EvaluationError(
                f"{path}: row {number + 1} has no {', '.join(missing)}; expected {', '.join(keys)} in each"
            )
    return rows


def texts(row: Mapping[str, Any], keys: Sequence[str], where: Path) -> list[str]:
    """Values of a row that must be texts.

    Raises:
        EvaluationError: for the first that is not.
    """
    return [value_of(row, key, str, where) for key in keys]


def id_of(row: Mapping[str, Any], key: str, where: Path) -> str:
    """A row's id, which is a text in one layout and a number in another.

    Raises:
        EvaluationError: where it is neither.
    """
    value = row.get(key)
    return str(value) if type(value) is int else value_of(row, key, str, where)


def find_file(folder: Path, name: str) -> Path | None:
    """A file or folder by its name: in a folder, or up to two folders below.

    Raises:
        EvaluationError: where two are equally near.
    """
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        if found := sorted(folder.glob(pattern)):
            if len(found) > 1:
                raise EvaluationError(f"{folder} has {found[0]} and {found[1]}: name the folder of the one to take")
            return found[0]
    return None


def value_of(row: Mapping[str, Any], name: str, kind: type[T], where: object) -> T:
    """A row's value, of the type that it must have.

    Raises:
        EvaluationError: naming what was found, and `where`.
    """
    value = row.get(name)
    if not isinstance(value, kind):
        shown = repr(row)[:SHOWN]
        raise EvaluationError(f"{where}: {name} is {value!r:.80}, expected {KINDS[kind]}, in the row {shown}")
    return value


def picture_digest(picture: Picture) -> str:
    """A name for a picture that has none: of its encoded bytes."""
    content = picture() if callable(picture) else picture.read_bytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def parquet_files(
    folder: Path, columns: Sequence[str], split: str | None = None, config: str | None = None
) -> list[Path]:
    """Parquet files below a folder that have all of some columns, in the order of their names.

    Args:
        folder: is searched, with all below it.
        columns: that a file needs.
        split, config: of the hub's names, `config/split-00000-of-00001.parquet`; files named otherwise are taken only
            where none is named so.

    Raises:
        EvaluationError: where there are Parquet files and pyarrow is missing, or one is cut.
    """
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    files = [path for path in files if set(columns) <= set(_parquet(path).schema_arrow.names)]
    files = [path for path in files if (config or DEFAULT_CONFIG) in path.relative_to(folder).parts] or files
    return [path for path in files if path.name.startswith(f"{split}-")] or files


class Pictures(dict[str, Picture]):
    """A row's pictures by their columns; asking for one that is not there is an error in plain words."""

    def __missing__(self, name: str) -> Picture:
        raise EvaluationError(f"a row has no picture in its column {name}, only in {', '.join(self) or 'none'}")


def parquet_rows(
    files: Sequence[Path], pictures: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[dict[str, Any], Pictures]]:
    """(values, pictures) of each row; values have no pictures' bytes, which are read when they are asked for.

    A row's pictures are those that it has: a column that is empty there is not among them.

    Args:
        files: Parquet files.
        pictures: columns of pictures, structs of `bytes` and `path` as the hub stores them; others are values.
        columns: that are needed beside them, if they are there.
    """
    for path in files:
        file = _parquet(path)
        names = set(file.schema_arrow.names)
        wanted = [name for name in columns if name in names]
        shown = [name for name in pictures if name in names]
        for group in range(file.num_row_groups):
            values = _read_group(file, path, group, wanted).to_pylist()
            there = {name: _has_picture(file, path, group, name) for name in shown}
            for number, row in enumerate(values):
                yield row, Pictures({name: _reader(path, group, number, name) for name in shown if there[name][number]})


def _has_picture(file: Any, path: Path, group: int, name: str) -> list[bool]:
    """Of each row, without reading the pictures: by what lies beside their bytes."""
    leaves = [file.schema.column(number).path for number in range(len(file.schema.names))]
    beside = [leaf for leaf in leaves if leaf.startswith(f"{name}.") and not leaf.endswith(".bytes")]
    if not beside:
        is_empty = str(file.schema_arrow.field(name).type) == "null"
        return [not is_empty] * file.metadata.row_group(group).num_rows
    return [one is not None for one in _read_group(file, path, group, beside[:1]).column(0).to_pylist()]


def _reader(path: Path, group: int, number: int, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        found = _pictures_of(path, group, name)[number].as_py()
        if isinstance(found, list) and len(found) == 1:
            [found] = found
        content = found.get("bytes") if isinstance(found, dict) else found
        if not isinstance(content, bytes):
            raise EvaluationError(f"{path}: {name} of row {number + 1} of group {group + 1} holds no encoded picture")
        return content

    return read


_kept: OrderedDict[tuple[Path, int, int, str], Any] = OrderedDict()
_keeping = Lock()


def _pictures_of(path: Path, group: int, name: str) -> Any:
    """A column of a row group; the last few are kept, since rows come in their order, or a picture with many rows."""
    key = path, path.stat().st_mtime_ns, group, name
    with _keeping:
        if key not in _kept:
            _kept[key] = _read_group(_parquet(path), path, group, [name]).column(0)
        _kept.move_to_end(key)
        while len(_kept) > 1 and sum(one.nbytes for one in _kept.values()) > KEPT_BYTES:
            _kept.popitem(last=False)
        return _kept[key]


def _read_group(file: Any, path: Path, group: int, columns: Sequence[str]) -> Any:
    import pyarrow

    try:
        return file.read_row_group(group, columns=list(columns))
    except (pyarrow.ArrowException, OSError) as error:
        raise EvaluationError(f"{path}, group {group + 1}, cannot be read ({error}): download it again") from error


def _parquet(path: Path) -> Any:
    if is_lfs_pointer(path):
        raise EvaluationError(f"{path} is {LFS_POINTER}")
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise EvaluationError(
            f"{path} is Parquet, which pyarrow reads, and that is not installed: pip install flashsloth[parquet]"
        ) from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise EvaluationError(f"{path} is not a whole Parquet file ({error}): download it again") from error


def find_picture(folder: Path, name: str) -> Path:
    """A picture by its name, with or without its ending.

    Raises:
        EvaluationError: where there is none.
    """
    for ending in ("", *PICTURE_ENDINGS):
        try:
            if (path := folder / f"{name}{ending}").is_file():
                return path
        except OSError:  # no file can have such a name
            break
    raise EvaluationError(f"{folder} has no picture {name!r:.80}: put the benchmark's pictures there")


def no_data(task: Task, folder: Path) -> NoDataError:
    """The error of a folder with neither layout."""
    own = f"{task.files}; or " if task.files else ""
    columns = ", ".join(task.columns)
    return NoDataError(
        f"{folder} has no data of {task.settings.title}: expected {own}Parquet files with the columns {columns}"
    )
