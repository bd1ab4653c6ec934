"""Runs a batch: asks what a file asks and has no answer yet, and writes every answer down as it comes.

In: a :class:`BatchSource`, a :class:`BatchOutput`, and who answers. Out: a line for each line, in any order, and a
:class:`BatchOutcome` that counts them. A line that cannot be asked, or answered, is a line with an error. The source is
read twice, once to count and to find ids that are there twice, and never held.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from flashsloth.serving.batch_lines import DIGEST_BYTES, BatchError, BatchLine, BatchSource, key_of, short
from flashsloth.serving.batch_output import BatchOutput, is_failed
from flashsloth.serving.digest_table import DigestTable

SHOWN = 3
"""Ids that an error names."""
BAD_LINE, FAILED = "bad_line", "failed"
"""Codes of errors: what cannot be asked, and what cannot be answered."""
Answered = tuple[BatchLine, dict[str, Any]]
"""A line, and what is written down for it."""


class Answerer(Protocol):
    """Who answers the lines of a batch."""

    def describe(self) -> dict[str, Any]:
        """What answers hang on beside the line: equal where answers would be."""

    def answers(self, lines: Iterator[BatchLine]) -> Iterator[Answered]:
        """Each line's answer as it gets done; `lines` is read as it is needed, in the caller's thread."""


@dataclass
class BatchOutcome:
    """What became of a batch.

    Attributes:
        lines: of the batch.
        already: whose answers were there.
        asked_again: whose lines were taken out of the file, since they have changed or ended in an error.
        answered: by this run.
        failed: of this run: their lines hold errors.
    """

    lines: int
    already: int = 0
    asked_again: int = 0
    answered: int = 0
    failed: int = 0


def read_asked(source: BatchSource) -> tuple[int, DigestTable]:
    """How many lines there are, and key -> digest of each that has an id.

    Raises:
        BatchError: where there is none, or an id is there twice.
    """
    asked, lines = DigestTable(), 0
    for line in source:
        lines += 1
        if line.id is not None:
            asked.add(line.key, line.digest or bytes(DIGEST_BYTES))
    if not lines:
        what = "pictures" if source.path.is_dir() else "lines"
        raise BatchError(f"{source.path} holds no {what}: there is nothing to ask")
    if repeated := asked.repeated():
        raise BatchError(_said_of(source, repeated))
    return lines, asked


def _said_of(source: BatchSource, repeated: set[bytes]) -> str:
    """What an error says of ids that are there twice: which, and where."""
    places: dict[Any, list[str]] = {}
    for line in source:
        if line.id is not None and line.key in repeated:
            places.setdefault(str(line.id), []).append(line.place)
    named = [f"{short(name)} ({' and '.join(where[:SHOWN])})" for name, where in list(places.items())[:SHOWN]]
    more = ", ..." if len(places) > SHOWN else ""
    return (
        f"{source.path} has {len(places):,} ids more than once: {', '.join(named)}{more}; expected each once (a line "
        "without an id has its content's digest)"
    )


def run_batch(
    source: BatchSource,
    counted: tuple[int, DigestTable],
    output: BatchOutput,
    answerer: Answerer,
    progress: Callable[[int, int], object] | None = None,
) -> BatchOutcome:
    """Ask what has no answer yet.

    Args:
        source: what is asked.
        counted: see :func:`read_asked`.
        output: where answers are written, open.
        answerer: who answers.
        progress: called with how many of this call's lines are done, and how many there are.

    Raises:
        BatchError: where the output is of another batch.
        OSError: where an answer cannot be written.
    """
    lines, asked = counted
    outcome = BatchOutcome(lines)
    outcome.asked_again = output.resume(asked, _digest_of_answerer(answerer))
    outcome.already = len(output.answered)

    def write(line: BatchLine, row: dict[str, Any]) -> None:
        output.add(line, row)
        outcome.failed += is_failed(row)
        outcome.answered += not is_failed(row)
        if progress is not None:
            progress(outcome.answered + outcome.failed, lines - outcome.already)

    def unanswered() -> Iterator[BatchLine]:
        for line in source:
            if line.mistake is not None:
                write(line, failed_row(line, source, BAD_LINE, f"{line.place}: {line.mistake}"))
            elif output.answered.find(line.key) != line.digest:
                yield line

    for line, row in answerer.answers(unanswered()):
        write(line, row)
    return outcome


def _digest_of_answerer(answerer: Answerer) -> str:
    described = json.dumps(answerer.describe(), sort_keys=True)
    return hashlib.blake2b(described.encode(), digest_size=DIGEST_BYTES).hexdigest()


def failed_row(line: BatchLine, source: BatchSource, code: str, message: str) -> dict[str, Any]:
    """What is written down for a line without an answer."""
    error = {"code": code, "message": message}
    if source.is_openai:
        name = key_of(line.place if line.id is None else line.id).hex()
        return {"id": f"batch_req_{name}", "custom_id": line.id, "response": None, "error": error}
    return {"id": line.id, **source.shown(line), "answer": None, "error": error}
