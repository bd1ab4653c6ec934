"""What a batch asks: lines of a file, or the pictures of a folder.

In: a path. Out: :class:`BatchLine`s, one after the other, as often as they are read:

    *.jsonl    OpenAI's batch lines   {"custom_id": ..., "method": "POST", "url": "/v1/chat/completions", "body": {...}}
               or simple ones         {"id": ..., "picture": "photo.jpg", "question": "What is this?"}
    *.csv      columns `picture` (or `image`), `question` and, where there is one, `id`
    a folder   all pictures in it, at any depth, each asked the same question

The first line of a JSONL file that can be read says which of both kinds all are. A line that cannot be asked says why,
and is as much a line as others. Whoever wrote the file owns its paths, which start from the file's folder; OpenAI's
lines are strangers' requests and hold no paths. No more than one line is held.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from flashsloth.errors import FlashSlothError
from flashsloth.serving.config import MIB, ServeConfig

LINE_BYTES = ServeConfig.max_body_bytes + MIB
"""The longest line: what the server takes of a body, and what stands around it."""
SKIPPED_BYTES = MIB
"""Read at a time of a line that is longer."""
DIGEST_BYTES = 16
TABLE_ENDING = ".csv"
LINES_ENDINGS = (".jsonl", ".ndjson", ".json")
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
DATA_SCHEME = "data:"
OWN_NAMES = ("custom_id", "body")
"""Keys of OpenAI's lines, of which no simple one has both."""
METHOD = "POST"
SHOWN_CHARACTERS = 40
"""Of a value, in an error."""


class BatchError(FlashSlothError, ValueError):
    """A batch cannot be run as it was asked for."""


@dataclass(frozen=True)
class BatchLine:
    """One thing that is asked.

    Attributes:
        place: where it stands, for errors: "line 7".
        id: which its answer has too; None where the line has none that can be read.
        asked: what is asked, as it was written: {"picture", "question"}, or {"method", "url", "body"}.
        digest: of what is asked.
        mistake: why it cannot be asked; None where it can.
    """

    place: str
    id: str | int | None
    asked: dict[str, Any] = field(default_factory=dict)
    digest: bytes = b""
    mistake: str | None = None

    @property
    def key(self) -> bytes:
        """A digest of the id."""
        return key_of(self.id)


def key_of(identity: object) -> bytes:
    """A digest of an id: of the number 7 the same as of the text."""
    return _digest(str(identity))


def digest_of(value: Any) -> bytes:
    """A digest of what JSON can hold, however it was written down."""
    return _digest(json.dumps(value, sort_keys=True, separators=(",", ":")))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class BatchSource:
    """The lines of a file or folder.

    Args:
        path: of it.
        question: what is asked where a line does not say; a folder needs one.

    Attributes:
        path: as given.
        folder: from which its relative paths start.
        is_openai: whether its lines are OpenAI's.

    Raises:
        BatchError: where there is no such file, or it is none that a batch can be of.
    """

    def __init__(self, path: Path, question: str | None = None) -> None:
        self.path, self._question = path, question
        self.folder = path if path.is_dir() else path.parent
        if not path.is_dir():
            if not path.exists():
                raise BatchError(f"{path}: there is no such file or folder")
            if not path.is_file():
                raise BatchError(f"{path} is not a file, and a batch is read twice: write it to one first")
            if path.suffix.lower() not in (TABLE_ENDING, *LINES_ENDINGS):
                endings = ", ".join((*LINES_ENDINGS, TABLE_ENDING))
                raise BatchError(f"{path} ends in {path.suffix!r}; expected one of {endings}, or a folder of pictures")
        elif question is None:
            raise BatchError(f"{path} is a folder of pictures: give --question, which is asked about each")
        if question is not None and not question.strip():
            raise BatchError("--question is empty; expected a text, such as 'What is in the picture?'")
        self.is_openai = False
        if path.is_file() and path.suffix.lower() in LINES_ENDINGS:
            self.is_openai = self._first_is_openai()
        if self.is_openai and question is not None:
            raise BatchError(f"{path} holds OpenAI's lines, which ask by themselves: leave --question out")

    def __iter__(self) -> Iterator[BatchLine]:
        if self.path.is_dir():
            return self._pictures()
        if self.path.suffix.lower() == TABLE_ENDING:
            return self._rows()
        return self._lines()

    def elsewhere(self) -> BatchSource:
        """The same for a process that works in another folder."""
        other = copy.copy(self)
        other.path, other.folder = self.path.absolute(), self.folder.absolute()
        return other

    def shown(self, line: BatchLine) -> dict[str, Any]:
        """Of a simple line, what stands in its answer's line as well; data URLs are not repeated."""
        names = ("picture", "question")
        return {name: line.asked[name] for name in names if name in line.asked and not _is_data(line.asked[name])}

    def picture(self, line: BatchLine) -> Any:
        """Of a simple line, what to open: paths from the folder, data URLs as they are."""
        named = line.asked["picture"]
        return [self._located(one) for one in named] if isinstance(named, list) else self._located(named)

    def _located(self, name: str) -> str:
        return name if _is_data(name) else os.path.join(self.folder, name)

    def _pictures(self) -> Iterator[BatchLine]:
        for path in _walk(self.path):
            name = path.relative_to(self.path).as_posix()
            asked = {"picture": name, "question": self._question}
            yield BatchLine(name, name, asked, digest_of(asked))

    def _rows(self) -> Iterator[BatchLine]:
        csv.field_size_limit(LINE_BYTES)
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            try:
                columns = rows.fieldnames or []
            except csv.Error as error:
                raise BatchError(f"{self.path} has no columns that can be read ({error})") from error
            if not {"picture", "image"} & {*columns}:
                raise BatchError(f"{self.path} has the columns {short(columns)}; expected picture or image among them")
            while True:
                try:
                    row = next(rows, None)
                except csv.Error as error:
                    yield BatchLine(f"line {rows.line_num}", None, mistake=f"the row cannot be read ({error})")
                    continue
                if row is None:
                    return
                yield self._row(f"line {rows.line_num}", {name: text for name, text in row.items() if text})

    def _row(self, place: str, row: dict[str, Any]) -> BatchLine:
        try:
            "".join(row.get(name, "") for name in ("id", "picture", "image", "question")).encode()
        except UnicodeEncodeError:  # bytes that were kept as half characters
            return BatchLine(place, None, mistake="the row is not UTF-8")
        return self._simple(place, row)

    def _lines(self) -> Iterator[BatchLine]:
        with self.path.open("rb") as file:
            for number, content in enumerate(_limited_lines(file), 1):
                place = f"line {number}"
                if content is None:
                    yield BatchLine(place, None, mistake=f"the line is longer than {LINE_BYTES:,} bytes")
                elif content.strip():
                    row = parsed(content)
                    if isinstance(row, str):
                        yield BatchLine(place, None, mistake=row)
                    else:
                        yield self._openai(place, row) if self.is_openai else self._simple(place, row)

    def _first_is_openai(self) -> bool:
        with self.path.open("rb") as file:
            for content in _limited_lines(file):
                row = parsed(content) if content else ""
                if not isinstance(row, str):
                    return all(name in row for name in OWN_NAMES)
        return False

    def _simple(self, place: str, row: dict[str, Any]) -> BatchLine:
        picture = row.get("picture", row.get("image"))
        question = row.get("question", self._question)
        identity = row.get("id")
        asked = {"picture": picture, "question": question}
        if isinstance(identity, bool) or not isinstance(identity, str | int | None) or identity == "":
            return BatchLine(place, None, mistake=f"id is {identity!r}; expected a text or a whole number")
        if not _names_pictures(picture):
            found = "there is no picture" if picture is None else f"picture is {short(picture)}"
            mistake = f"{found}; expected a path or a data URL, or a list of those"
        elif not isinstance(question, str) or not question.strip():
            found = "there is no question" if question is None else f"question is {short(question)}"
            mistake = f"{found}; expected a text that is not empty, or --question"
        else:
            digest = digest_of(asked)
            return BatchLine(place, digest.hex() if identity is None else identity, asked, digest)
        return BatchLine(place, identity, mistake=mistake)

    def _openai(self, place: str, row: dict[str, Any]) -> BatchLine:
        identity = row.get("custom_id")
        if not isinstance(identity, str) or not identity:
            return BatchLine(place, None, mistake=f"custom_id is {short(identity)}; expected a text that is not empty")
        asked = {name: row.get(name) for name in ("method", "url", "body")}
        if asked["method"] != METHOD:
            mistake = f"method is {short(asked['method'])}; expected {METHOD!r}"
        elif not isinstance(asked["url"], str):
            mistake = f"url is {short(asked['url'])}; expected a text such as '/v1/chat/completions'"
        elif not isinstance(asked["body"], dict):
            mistake = f"body is {short(asked['body'])}; expected an object"
        else:
            try:
                return BatchLine(place, identity, asked, digest_of(asked))
            except RecursionError:
                mistake = "body is nested too deep"
        return BatchLine(place, identity, mistake=mistake)


def parsed(content: bytes) -> dict[str, Any] | str:
    """The object that a line holds, or why it holds none."""
    try:
        row = json.loads(content)
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON ({error})"
    return row if isinstance(row, dict) else f"the line holds {short(row)}; expected an object"


def _limited_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines, the last of which need not end; None in place of one that is too long, which is skipped."""
    while content := file.readline(LINE_BYTES + 1):
        if len(content) <= LINE_BYTES:
            yield content
            continue
        while content and not content.endswith(b"\n"):
            content = file.readline(SKIPPED_BYTES)
        yield None


def _walk(folder: Path) -> Iterator[Path]:
    """Pictures by their endings, in the order of their names; what is hidden is left out."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.suffix.lower() in PICTURE_ENDINGS and path.is_file():
            yield path


def _names_pictures(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name for name in names)


def _is_data(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return any(isinstance(name, str) and name[: len(DATA_SCHEME)].lower() == DATA_SCHEME for name in names)


def short(value: Any) -> str:
    """A value in an error, not at length."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
