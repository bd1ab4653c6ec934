"""Where each sample of a JSON or JSONL file stands, found without keeping any of them.

In: a file. Out: int64 [N, 2], the first byte of each sample and the byte after its last one. A JSON list is read once,
a block at a time: every sample is parsed, so a syntax error is found here, and forgotten. A JSONL file is only searched
for line ends, unless its samples are printed over several lines; those are parsed. A million samples are 16 MB.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flashsloth.training.data.sample import DataError

BLOCK_BYTES = 8 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MARGIN = 16
"""Characters: a syntax error that is nearer to the end of a block than this may be the block's end cutting a token."""
_SPACE = re.compile(r"[ \t\n\r]*")


def table_of(flat: array, width: int = 2) -> np.ndarray:
    """Numbers that were noted one after the other, as rows: int64 [N, width]."""
    return np.array(flat, dtype=np.int64).reshape(-1, width)


class _Window:
    """A part of a file as text, a character a byte: Latin-1 keeps every offset, and JSON's own signs are ASCII."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.text, self.start, self.ended = file, "", 0, False
        self.reached = 0
        """Where the list that was read last ended."""

    def more(self, keep_from: int) -> None:
        """Forget what stands before `keep_from`, and read on: as much as there is already, at least a block."""
        self.start += keep_from
        kept = self.text[keep_from:]
        read = self.file.read(max(BLOCK_BYTES, len(kept)))
        self.ended = not read
        self.text = kept + read.decode("latin-1")

    def past_space(self, place: int) -> int:
        match = _SPACE.match(self.text, place)
        assert match is not None
        return match.end()


def json_elements(path: Path) -> Iterator[tuple[int, int, Any]]:
    """Each element of the list that a JSON file holds: (first byte, byte after the last, the value).

    Texts of the value are bytes read as Latin-1: their lengths are those of the file, their letters are not.

    Raises:
        DataError: where the file is not a JSON list, with the place.
    """
    with open(path, "rb") as file:
        window = _Window(file)
        place = _first_token(window)
        opening = window.text[place : place + 1]
        if not opening:
            raise DataError(f"{path} is empty, expected a non-empty list of samples")
        if opening != "[":
            raise DataError(f"{path} is not JSON: it begins with {opening!r}, expected a list of samples")
        yield from _list(path, window, place + 1)


def json_members(path: Path) -> Iterator[tuple[str, bool, int, int, Any]]:
    """The members of the object that a JSON file holds: (key, whether it is an element of a list, first byte,
    byte after the last, the value).

    Of a list, every element comes by itself, with its list's key. Texts are as those of :func:`json_elements`.

    Raises:
        DataError: where the file is not one JSON object, with the place.
    """
    decoder = json.JSONDecoder()
    with open(path, "rb") as file:
        window = _Window(file)
        place = _first_token(window) + 1
        while True:
            place = _next_token(window, place)
            if window.text[place : place + 1] == "}":
                break
            key, place = _whole(path, decoder, window, place, 0)
            place = _next_token(window, place)
            if not isinstance(key, str) or window.text[place : place + 1] != ":":
                raise DataError(f"{path} is not JSON: expected a key and : at byte {window.start + place}")
            place = _next_token(window, place + 1)
            if window.text[place : place + 1] == "[":
                yield from ((key, True, *found) for found in _list(path, window, place + 1))
                place = window.reached
            else:
                before = window.start + place
                value, place = _whole(path, decoder, window, place, 0)
                yield key, False, before, window.start + place, value
            place = _next_token(window, place)
            delimiter = window.text[place : place + 1]
            if delimiter == ",":
                place += 1
            elif delimiter != "}":
                raise DataError(f"{path} is not JSON: expected , or }} behind {key!r}, found {delimiter!r}")
        place = _next_token(window, place + 1)
        if place < len(window.text):
            raise DataError(f"{path} is not JSON: something follows its object at byte {window.start + place}")


def _list(path: Path, window: _Window, place: int) -> Iterator[tuple[int, int, Any]]:
    """The elements of a list of which `[` stands before `place`; `window.reached` is then behind its end."""
    decoder, number = json.JSONDecoder(), 0
    while True:
        place = _next_token(window, place)
        if number == 0 and window.text[place : place + 1] == "]":
            break
        value, end = _element(path, decoder, window, place, number)
        if end is None:
            window.more(place)
            place = 0
            continue
        yield window.start + place, window.start + end, value
        number += 1
        place = _next_token(window, end)
        delimiter = window.text[place : place + 1]
        if delimiter == "]":
            break
        if delimiter != ",":
            raise DataError(f"{path} is not JSON: expected , or ] after sample {number - 1}, found {delimiter!r}")
        place += 1
    window.reached = place + 1


def _whole(path: Path, decoder: json.JSONDecoder, window: _Window, place: int, number: int) -> tuple[Any, int]:
    """The value at `place`, however many blocks it takes, and where it ends."""
    while True:
        value, end = _element(path, decoder, window, place, number)
        if end is not None:
            return value, end
        window.more(place)
        place = 0


def _first_token(window: _Window) -> int:
    """The first character that is neither a byte-order mark nor a space."""
    while len(window.text) < len(BYTE_ORDER_MARK) and not window.ended:
        window.more(0)
    skipped = len(BYTE_ORDER_MARK) if window.text.startswith(BYTE_ORDER_MARK.decode("latin-1")) else 0
    return _next_token(window, skipped)


def _next_token(window: _Window, place: int) -> int:
    """The next character that is no space; reads on where the block ends before it."""
    place = window.past_space(place)
    while place == len(window.text) and not window.ended:
        window.more(place)
        place = window.past_space(0)
    return place


def _element(path: Path, decoder: json.JSONDecoder, window: _Window, place: int, number: int) -> tuple[Any, int | None]:
    """The element at `place` and where it ends; None for the end where the block ends first."""
    try:
        value, end = decoder.raw_decode(window.text, place)
    except json.JSONDecodeError as error:
        unfinished = error.msg.startswith("Unterminated string") or error.pos >= len(window.text) - MARGIN
        if window.ended or not unfinished:
            where = f"byte {window.start + error.pos}, in sample {number}"
            raise DataError(f"{path} is not JSON: {error.msg} at {where}") from error
        return None, None
    except RecursionError as error:
        raise DataError(f"{path} is nested too deep at byte {window.start + place}, in sample {number}") from error
    return value, end if end < len(window.text) or window.ended else None


class Shape(Enum):
    """How a file of JSON holds its samples: told from its first block."""

    LIST = "one list"
    LINES = "a sample a line"
    PRINTED = "samples over several lines each"
    OBJECT = "one object"
    OTHER = "no JSON"


def shape_of(path: Path) -> Shape:
    """The shape of a file."""
    with open(path, "rb") as file:
        window = _Window(file)
        place = _first_token(window)
        sign = window.text[place : place + 1]
        line_end = window.text.find("\n", place)
        line = window.text[place:] if line_end < 0 else window.text[place:line_end]
        is_whole = _is_json(line)
        follows = line_end >= 0 and _next_token(window, line_end) < len(window.text)
        if sign == "[":
            return Shape.LINES if is_whole and follows else Shape.LIST
        if is_whole:
            return Shape.LINES if follows or sign != "{" else Shape.OBJECT
        if sign != "{":
            return Shape.OTHER
        try:
            _, end = json.JSONDecoder().raw_decode(window.text, place)
        except json.JSONDecodeError as error:
            cut = (not window.ended and error.pos >= len(window.text) - MARGIN) or error.msg.startswith("Unterminated")
            return Shape.OBJECT if cut else Shape.OTHER
        except RecursionError:
            return Shape.OTHER
        return Shape.PRINTED if _next_token(window, end) < len(window.text) else Shape.OBJECT


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def printed_spans(path: Path) -> np.ndarray:
    """The objects of a file that stand one after the other, each over several lines perhaps: int64 [N, 2].

    Where one is broken, the next begins with the next line that begins with `{`; what lies between is one sample.
    """
    decoder, spans = json.JSONDecoder(), array("q")
    with open(path, "rb") as file:
        window = _Window(file)
        place = _first_token(window)
        while (place := _next_token(window, place)) < len(window.text):
            try:
                _, end = _element(path, decoder, window, place, 0)
            except DataError:
                end = _next_object(window, place)
            if end is None:
                window.more(place)
                place = 0
                continue
            spans.extend((window.start + place, window.start + end))
            place = end
    return table_of(spans)


def _next_object(window: _Window, place: int) -> int | None:
    """Where the next object may begin; None where the block ends first."""
    found = window.text.find("\n{", place)
    if found >= 0:
        return found + 1
    return len(window.text) if window.ended else None


def jsonl_spans(path: Path) -> np.ndarray:
    """The lines of a JSONL file that are not blank: int64 [N, 2]."""
    newline = ord("\n")
    ends = array("q")
    size = 0
    with open(path, "rb") as file:
        mark = file.read(len(BYTE_ORDER_MARK))
        first = len(mark) if mark == BYTE_ORDER_MARK else 0
        file.seek(0)
        last = newline
        while block := file.read(BLOCK_BYTES):
            found = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == newline) + size
            ends.frombytes(found.astype(np.int64).tobytes())
            size += len(block)
            last = block[-1]
        if last != newline:
            ends.append(size)
        stops = np.array(ends, dtype=np.int64)
        starts = np.concatenate([[first], stops[:-1] + 1]) if len(stops) else stops
        spans = np.stack([starts, stops], axis=1)
        short = np.flatnonzero(spans[:, 1] - spans[:, 0] <= 1)
        blank = []
        for row, (start, stop) in zip(short.tolist(), spans[short].tolist(), strict=True):
            file.seek(start)
            if stop <= start or file.read(1) == b"\r":
                blank.append(row)
    return np.delete(spans, blank, axis=0)
