"""The file of a batch's answers: a line each, kept whatever ends a process, and what is still to be asked.

In: answers, as they come. Out: a file in which each id stands once, in any order. Each line says what it answers and
who answered (`flashsloth`: digests), so that a later run knows which lines still count:

    the same line, answered       stays
    the same line, with an error  is asked again
    a line that has changed       is asked again
    an id that is not asked       stops the run: the file belongs to another batch
    another model, other options  stop the run: answers would be mixed

Lines are written whole, by one call each. One that was cut off in the midst, by a power failure or a full disk, is
removed. What is asked again is taken out of the file before anything is asked.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from flashsloth.evaluation.predictions import ESCAPED
from flashsloth.evaluation.run_folder import SYNCED_SECONDS
from flashsloth.files import lock_file, whole_file
from flashsloth.serving.batch_lines import BatchError, BatchLine, key_of, parsed
from flashsloth.serving.digest_table import DigestTable

MARK = "flashsloth"
"""The key of a line under which stand the digests of what was asked, and of who answered how."""
ASKED, BY = "asked", "by"
FIRST_BYTES = b'{"id": '
"""How every line begins."""
FIRST_FAILURE = 400
"""The least status of HTTP that is no success."""
ADVICE = "choose another file, or remove this one"
LOCK_MODE = os.O_RDWR | os.O_CREAT


class BatchOutput:
    """A file of answers, opened by the one process that writes it; a context that holds it.

    Args:
        path: the file, made where it is not there.

    Attributes:
        path: as given.
        answered: key -> digest of each line whose answer stays, once the file was read.

    Raises:
        BatchError: where another process is at it, or it can be no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answered = DigestTable()
        self._by = ""
        self._file: int | None = None
        self._synced: float | None = None  # when it was made sure of the disk; None before anything is written
        self._held = ExitStack()
        if path.exists() and not path.is_file():
            raise BatchError(f"{path} is not a file, and answers are read again when a batch goes on: name a file")
        if not path.absolute().parent.is_dir():
            raise BatchError(f"{path}: there is no folder {path.parent}: make it")

    def __enter__(self) -> BatchOutput:
        with self._held:
            self._lock()
            self._held = self._held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._file is not None:
                if self._synced is not None:
                    os.fsync(self._file)
                os.close(self._file)
                self._file = None
        finally:
            self._held.close()

    def resume(self, asked: DigestTable, by: str) -> int:
        """Read what is there, take out what is asked again, and be ready to write; returns how much was taken out.

        Args:
            asked: key -> digest of each line that is asked.
            by: a digest of who answers, and how.

        Raises:
            BatchError: where the file is of another batch, or no such file.
        """
        self._by = by
        taken_out = 0
        if self.path.is_file():
            with self.path.open("r+b") as file:
                end = _end_of_lines(file, self.path)
                taken_out = self._read(file, end, asked)
                file.truncate(end)  # not before everything was found to be this batch's
                if taken_out:
                    self._rewrite(file, end, asked)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        return taken_out

    def add(self, line: BatchLine, row: dict[str, Any]) -> None:
        """Write a line's answer down: it outlasts this process from now on, and the machine within some seconds.

        Raises:
            OSError: where it cannot be written whole; the file then ends where it ended before.
        """
        assert self._file is not None
        marked = {**row, MARK: {ASKED: line.digest.hex(), BY: self._by}}
        content = (json.dumps(marked, ensure_ascii=False) + "\n").encode("utf-8", ESCAPED)
        end = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(content):  # once, but on a disk that is nearly full
                written += os.write(self._file, content[written:])
            now = time.monotonic()
            if self._synced is None or now - self._synced > SYNCED_SECONDS:
                os.fsync(self._file)
                self._synced = now
        except OSError as error:
            with suppress(OSError):  # else the next run removes what was cut off
                os.ftruncate(self._file, end)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _read(self, file: BinaryIO, end: int, asked: DigestTable) -> int:
        """Note which answers stay; returns how many lines do not.

        Raises:
            BatchError: see :meth:`resume`.
        """
        kept, taken_out = DigestTable(), 0
        for number, row, _ in _rows(file, end, self.path):
            if self._stays(number, row, asked):
                kept.add(key_of(_id_of(row)), bytes.fromhex(row[MARK][ASKED]))
            else:
                taken_out += 1
        if repeated := kept.repeated():
            ids = (_id_of(row) for _, row, _ in _rows(file, end, self.path))
            some = next(one for one in ids if key_of(one) in repeated)
            raise BatchError(f"{self.path} has {some!r} twice, expected each id once: remove one of its lines")
        self.answered = kept
        return taken_out

    def _stays(self, number: int, row: dict[str, Any], asked: DigestTable) -> bool:
        """Whether a line's answer counts.

        Raises:
            BatchError: where the line belongs to another batch.
        """
        where = f"{self.path}, line {number},"
        mark, identity = row.get(MARK), _id_of(row)
        if not isinstance(mark, dict) or not isinstance(mark.get(ASKED), str) or not isinstance(mark.get(BY), str):
            raise BatchError(f"{where} was not written by `flashsloth batch`: {ADVICE}")
        if mark[BY] != self._by:
            raise BatchError(f"{where} was answered by another model, or with other options: {ADVICE}")
        found = asked.find(key_of(identity))
        if found is None and identity is not None:
            raise BatchError(f"{where} answers {identity!r}, which is not asked here: {ADVICE}")
        return found is not None and found.hex() == mark[ASKED] and not is_failed(row)

    def _rewrite(self, file: BinaryIO, end: int, asked: DigestTable) -> None:
        """Put a file of the lines that stay in the place of this one, at once or not at all."""
        with whole_file(self.path) as unfinished, unfinished.open("wb") as new:
            for number, row, content in _rows(file, end, self.path):
                if self._stays(number, row, asked):
                    new.write(content)
            new.flush()
            os.fsync(new.fileno())

    def _lock(self) -> None:
        """Keep other processes from the file, by one beside it that is there meanwhile."""
        path = self.path.absolute().with_name(f".{self.path.name}.lock")
        while True:
            file = os.open(path, LOCK_MODE, 0o666)
            self._held.callback(os.close, file)
            try:
                lock_file(file, wait=False)
            except BlockingIOError as error:
                raise BatchError(f"{self.path} is being written by another process: wait for it") from error
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):  # else its last holder has removed it
                self._held.callback(path.unlink, missing_ok=True)
                return


def is_failed(row: dict[str, Any]) -> bool:
    """Whether a line holds an error in place of an answer."""
    response = row.get("response")
    refused = isinstance(response, dict) and response.get("status_code", 0) >= FIRST_FAILURE
    return refused or row.get("error") is not None


def _id_of(row: dict[str, Any]) -> Any:
    return row["custom_id"] if "custom_id" in row else row.get("id")


def _end_of_lines(file: BinaryIO, path: Path) -> int:
    """Where the last line ends that is whole and can be read: what a power failure has left after it is none.

    Raises:
        BatchError: where nothing can be read, and it is not the beginning of a first line either.
    """
    end = place = 0
    file.seek(0)
    for content in file:
        place += len(content)
        if content.endswith(b"\n") and not isinstance(parsed(content), str):
            end = place
    file.seek(0)
    if place and not end and not FIRST_BYTES.startswith(file.read(len(FIRST_BYTES))):
        raise BatchError(f"{path} was not written by `flashsloth batch`: {ADVICE}")
    return end


def _rows(file: BinaryIO, end: int, path: Path) -> Iterator[tuple[int, dict[str, Any], bytes]]:
    """(number, what it holds, as it stands) of all lines before `end`.

    Raises:
        BatchError: for a line that is no JSON.
    """
    file.seek(0)
    place = 0
    for number, content in enumerate(file, 1):
        place += len(content)
        if place > end:
            return
        row = parsed(content)
        if isinstance(row, str):
            raise BatchError(f"{path}, line {number}: {row}: {ADVICE}")
        yield number, row, content
