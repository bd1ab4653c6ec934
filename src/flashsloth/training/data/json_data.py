"""LLaVA's JSON list and JSONL, read by place: of a million samples, two numbers each are kept, and no text.

Which of the two a file is, its content says: lines called .json are read as lines.

JSON that people wrote, read strictly: a key that stands twice is a mistake; Python's own reader takes the last one.

In: text. Out: its value.

JSON objects whose samples are put together from several lists: COCO's captions, VQAv2's questions and annotations.

In: a JSON file that holds an object. Out: a dataset; of every sample it keeps a few numbers, and reads the entries that
belong together where they stand.

    COCO    {"images": [{"id", "file_name"}], "annotations": [{"id", "image_id", "caption"}]}
    VQAv2   {"data_subtype", "questions": [{"question_id", "image_id", "question"}]}, and in a file beside it
            {"annotations": [{"question_id", "multiple_choice_answer", "answers"}]}
    others  {"data": [...]}, a list of samples and what else a publisher wrote around it
"""

from __future__ import annotations

import json
from array import array
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.training.data.json_spans import (
    Shape,
    json_elements,
    json_members,
    jsonl_spans,
    printed_spans,
    shape_of,
    table_of,
)
from flashsloth.training.data.layouts import check_record
from flashsloth.training.data.records import PrivateFiles, RecordData, text_size
from flashsloth.training.data.refused_files import refuse_foreign
from flashsloth.training.data.sample import BadSampleError, DataError, Sizes

SUBTYPE = "data_subtype"
_LISTS = ("images", "questions", "annotations")
COCO_NAMES = "{subtype}/COCO_{subtype}_{number:012d}.jpg", "{subtype}/{number:012d}.jpg"
"""How COCO calls its pictures, before 2017 and since; with the folder of their split and without it."""


def parse_record(text: bytes) -> Any:
    """The value of a record's JSON.

    Raises:
        BadSampleError: if it is none, is nested too deeply, or a key of a group stands in it twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_group)
    except (ValueError, RecursionError) as error:
        raise BadSampleError(f"cannot be read as JSON: {error}", "unreadable_record") from error


def _group(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group = dict(pairs)
    if len(group) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return group


class SpanData(RecordData):
    """Samples that each stand somewhere in one text file.

    Args:
        path: the file.
        images: the folder picture paths start from; without it, the file's.
        independent: see :class:`Sample`.
    """

    format = "LLaVA JSON"
    spans: np.ndarray
    """int64 [N, 2], first byte of each and the byte after its last one."""

    def __init__(self, path: str, images: str | None = None, independent: bool = False) -> None:
        file = Path(path)
        if not file.is_file():
            raise DataError(f"no data at {file}: expected a {self.format} file")
        refuse_foreign(file)
        super().__init__(str(file), Path(images) if images else file.parent, independent)
        self.files = PrivateFiles([file])
        self._open(file)
        if not len(self.spans):
            raise DataError(f"{file} holds no samples, expected a non-empty list of samples")

    def _open(self, file: Path) -> None:
        """Find the spans."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.spans)

    def bytes_at(self, span: np.ndarray, file: int = 0) -> bytes:
        """What stands somewhere in one of the files."""
        start, stop = span.tolist()
        return self.files.read(file, start, stop - start)

    def record(self, index: int) -> Any:
        return parse_record(self.bytes_at(self.spans[index]))

    def sizes(self) -> Sizes:
        found = np.zeros((len(self), 2), dtype=np.int64)
        for index in range(len(self)):
            with suppress(BadSampleError):  # it is met again, and named, when it is read to be learned from
                found[index] = text_size(self.record(index))
        return Sizes(found[:, 0], found[:, 1])


class JsonData(SpanData):
    """A JSON file with a list of samples."""

    _sizes: np.ndarray | None = None

    def _open(self, file: Path) -> None:
        shape = shape_of(file)
        if shape in (Shape.LINES, Shape.PRINTED):
            self.spans = jsonl_spans(file) if shape is Shape.LINES else printed_spans(file)
        elif shape is Shape.OBJECT:
            raise DataError(
                f"{file} holds an object, expected a non-empty list of samples; one object a line is for jsonl:"
            )
        else:
            self._open_list(file)

    def _open_list(self, file: Path) -> None:
        """Parse a list once; the sizes are noted on the way."""
        flat = array("q")
        for start, stop, value in json_elements(file):
            flat.extend((start, stop, *text_size(value)))
        table = table_of(flat, 4)
        self.spans, self._sizes = table[:, :2], table[:, 2:]

    def sizes(self) -> Sizes:
        """As :meth:`SpanData.sizes`; those of a list were noted when it was parsed to be opened."""
        return super().sizes() if self._sizes is None else Sizes(self._sizes[:, 0], self._sizes[:, 1])


class JsonlData(JsonData):
    """A file with one sample a line, or over several lines."""

    format = "JSONL"

    def _open(self, file: Path) -> None:
        shape = shape_of(file)
        if shape is Shape.LIST:
            self._open_list(file)
        else:
            self.spans = printed_spans(file) if shape in (Shape.PRINTED, Shape.OBJECT) else jsonl_spans(file)


class Lists:
    """The lists of a JSON object: where the entries of each stand, what they are called and what they belong to."""

    def __init__(self, path: Path) -> None:
        flat: dict[str, array] = {}
        self.others: dict[str, Any] = {}
        self.first: dict[str, Any] = {}
        for key, in_list, start, stop, value in json_members(path):
            if in_list:
                entry = value if isinstance(value, dict) else {}
                ids = _number(entry.get("question_id", entry.get("id"))), _number(entry.get("image_id"))
                flat.setdefault(key, array("q")).extend((start, stop, *ids))
                self.first.setdefault(key, entry)
            elif isinstance(value, str):
                self.others[key] = value
        self.tables = {key: table_of(rows, 4) for key, rows in flat.items()}
        """int64 [N, 4] a list: first byte, byte after the last, own id, picture's id."""

    def spans(self, key: str) -> np.ndarray:
        return self.tables[key][:, :2]

    def ids(self, key: str) -> np.ndarray:
        return self.tables[key][:, 2]

    def pictures(self, key: str) -> np.ndarray:
        return self.tables[key][:, 3]


def open_json(path: str, images: str | None = None, independent: bool = False) -> SpanData:
    """The dataset of a JSON file, whatever it holds.

    Raises:
        DataError: if that is nothing known.
    """
    file = Path(path)
    if not file.is_file():
        return JsonData(path, images, independent)  # which says so
    refuse_foreign(file)
    if shape_of(file) is not Shape.OBJECT:
        return JsonData(path, images, independent)
    lists = Lists(file)
    names = set(lists.tables)
    if {"images", "annotations"} <= names:
        return CocoData(path, lists, images, independent)
    if "questions" in names or ("annotations" in names and "question_id" in lists.first["annotations"]):
        return VqaData(path, lists, images, independent)
    if "data" in names:
        return WrappedData(path, lists, images, independent)
    return JsonData(path, images, independent)


class WrappedData(SpanData):
    """The list under `data` of an object."""

    def __init__(self, path: str, lists: Lists, images: str | None = None, independent: bool = False) -> None:
        self._lists: Lists | None = lists
        super().__init__(path, images, independent)
        self._lists = None

    def _open(self, file: Path) -> None:
        assert self._lists is not None
        self.spans = self._lists.spans("data")

    def entry(self, file: int, span: np.ndarray) -> dict[str, Any]:
        """The object that stands somewhere in one of the files."""
        return check_record(parse_record(self.bytes_at(span, file)))


class CocoData(WrappedData):
    """A sample a caption."""

    layout = "COCO captions"

    def _open(self, file: Path) -> None:
        assert self._lists is not None
        first = self._lists.first["annotations"]
        if "caption" not in first:
            raise DataError(f"{file} has annotations with {sorted(first)}, expected a caption in each")
        self.split = file.stem.rpartition("_")[2]  # captions_train2017.json
        self.spans = self._lists.spans("annotations")
        self.pictured = _rows(self._lists.ids("images"), self._lists.pictures("annotations"))
        self.picture_spans = self._lists.spans("images")

    def record(self, index: int) -> Any:
        said, row = self.entry(0, self.spans[index]), int(self.pictured[index])
        if row < 0:
            raise BadSampleError("has an image_id that no image has", "missing_picture")
        picture = self.entry(0, self.picture_spans[row])
        return {"id": said.get("id"), "image": self._picture(picture), "caption": said.get("caption")}

    def _picture(self, picture: dict[str, Any]) -> Any:
        """A picture's name, with the folder of its split where it lies in that: COCO's file names none."""
        name, url = picture.get("file_name"), picture.get("coco_url")
        if not isinstance(name, str) or "\0" in name or (self.images / name).is_file():
            return name
        splits = [self.split, *(url.split("/")[-2:-1] if isinstance(url, str) else ())]
        return next((found for split in splits if (self.images / (found := f"{split}/{name}")).is_file()), name)


class VqaData(WrappedData):
    """A sample a question."""

    layout = "VQAv2 questions and annotations"

    def _open(self, file: Path) -> None:
        lists = self._lists
        assert lists is not None
        is_questions = "questions" in lists.tables
        if is_questions and "annotations" in lists.tables:
            questions, answers, files = lists, lists, [file, file]
        else:
            other = _counterpart(file, is_questions)
            refuse_foreign(other)
            found = Lists(other)
            questions, answers = (lists, found) if is_questions else (found, lists)
            files = [file, other] if is_questions else [other, file]
        for name, holder, path in (("questions", questions, files[0]), ("annotations", answers, files[1])):
            if name not in holder.tables:
                raise DataError(f"{path} has no list of {name}, which {file} needs")
        self.files = PrivateFiles(files)
        self.spans = questions.spans("questions")
        self.answer_spans = answers.spans("annotations")
        self.answered = _rows(answers.ids("annotations"), questions.ids("questions"))
        self.subtype = questions.others.get(SUBTYPE) or answers.others.get(SUBTYPE)
        if (self.answered < 0).all():
            raise DataError(f"{files[1]} answers none of the questions in {files[0]}: expected those of the same split")

    def record(self, index: int) -> Any:
        asked, row = self.entry(0, self.spans[index]), int(self.answered[index])
        if row < 0:
            raise BadSampleError("has no annotation that answers it", "nothing_supervised")
        said = self.entry(1, self.answer_spans[row])
        keys = ("answer", "multiple_choice_answer", "answers")
        return {
            "question_id": asked.get("question_id"),
            "image": self._picture(asked),
            "question": asked.get("question"),
            **{key: said[key] for key in keys if key in said},
        }

    def _picture(self, asked: dict[str, Any]) -> Any:
        """The name of a question's picture: its own, or COCO's for its number."""
        number = asked.get("image_id")
        own = asked.get("image", asked.get("file_name"))
        if own is not None or not isinstance(number, int) or isinstance(number, bool):
            return number if own is None else own
        with_folder = [name.format(subtype=self.subtype, number=number) for name in COCO_NAMES]
        names = [name.partition("/")[2] for name in with_folder] + with_folder
        if self.subtype is None:
            names = [f"{number:012d}.jpg"]
        return next((name for name in names if (self.images / name).is_file()), names[0])


def companion(file: Path) -> Path | None:
    """The file beside a JSON file that its samples are put together from too; None for none. No list is read whole."""
    try:
        if shape_of(file) is not Shape.OBJECT:
            return None
        named = next((key for key, in_list, *_ in json_members(file) if in_list and key in _LISTS), "images")
        return None if named == "images" else _counterpart(file, named == "questions")
    except DataError:  # which is told of where the file is opened
        return None


def _counterpart(file: Path, is_questions: bool) -> Path:
    """The annotations beside a file of questions, or the questions beside one of annotations.

    Raises:
        DataError: if there is none, or more than one could be.
    """
    mine, other = ("questions", "annotations") if is_questions else ("annotations", "questions")
    if is_questions:
        exact = file.with_name(file.name.replace("OpenEnded_", "").replace(mine, other))
    else:
        exact = file.with_name(file.name.replace("mscoco", "OpenEnded_mscoco").replace(mine, other))
    if exact != file and exact.is_file():
        return exact
    beside = sorted(path for path in file.parent.glob(f"*{other}*.json") if path != file)
    if len(beside) == 1:
        return beside[0]
    found = f"{len(beside)} files *{other}*.json" if beside else f"no file *{other}*.json"
    raise DataError(f"{file} holds {mine} alone and beside it lie {found}: expected {exact.name} in the same folder")


def _rows(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The row of each wanted id among the ids, -1 where there is none: int64 [N]."""
    order = np.argsort(ids, kind="stable")
    places = np.searchsorted(ids, wanted, sorter=order)
    rows = order[np.minimum(places, len(ids) - 1)]
    return np.where(ids[rows] == wanted, rows, -1)


def _number(value: Any) -> int:
    """An id as a number of 64 bits: itself, or a digest of what else it is."""
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return value
    text = f"{type(value).__name__} {value if isinstance(value, (str, float)) else ''}"
    digest = blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
