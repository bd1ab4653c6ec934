"""A file of a batch's answers: what stays in it, what is taken out, and what it is refused for."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import forked
import pytest

from flashsloth.serving.batch_lines import BatchError, BatchLine, digest_of
from flashsloth.serving.batch_output import BatchOutput
from flashsloth.serving.digest_table import DigestTable

BY = "0" * 32


def line(name: str, question: str = "What?") -> BatchLine:
    asked = {"picture": f"{name}.png", "question": question}
    return BatchLine("line 1", name, asked, digest_of(asked))


def table(lines: Iterable[BatchLine]) -> DigestTable:
    asked = DigestTable()
    for one in lines:
        asked.add(one.key, one.digest)
    return asked


LINES = [line(name) for name in "abcdef"]


def answer(one: BatchLine) -> dict[str, Any]:
    return {"id": one.id, "answer": f"of {one.id}\udcff", "error": None}


def failure(one: BatchLine) -> dict[str, Any]:
    return {"id": one.id, "answer": None, "error": {"code": "failed", "message": "no such file"}}


def resumed(path: Path, lines: Iterable[BatchLine] = LINES, by: str = BY) -> set[str]:
    """Which lines are answered, after a run that answers nothing."""
    known = [*lines]
    with BatchOutput(path) as output:
        output.resume(table(known), by)
        return {str(one.id) for one in known if output.answered.find(one.key) == one.digest}


def write(path: Path, lines: Iterable[BatchLine], failing: str = "") -> bytes:
    with BatchOutput(path) as output:
        output.resume(table(LINES), BY)
        for one in lines:
            output.add(one, failure(one) if one.id in [*failing] else answer(one))
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_what_is_written_is_found_again(path: Path) -> None:
    assert resumed(path) == set()
    content = write(path, LINES[:3])
    assert resumed(path) == {"a", "b", "c"}
    assert path.read_bytes() == content
    assert json.loads(content.splitlines()[0]) == {
        "id": "a",
        "answer": "of a\udcff",
        "error": None,
        "flashsloth": {"asked": LINES[0].digest.hex(), "by": BY},
    }
    assert write(path, LINES[3:]).startswith(content)
    assert resumed(path) == {*"abcdef"}
    assert os.listdir(path.parent) == [path.name]


def test_wherever_a_file_was_cut_off_the_lines_before_stay(path: Path) -> None:
    content = write(path, LINES)
    lines = content.splitlines(keepends=True)
    ends = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    for size in range(len(content)):
        path.write_bytes(content[:size])
        whole = sum(end <= size for end in ends[1:])
        assert resumed(path) == {*"abcdef"[:whole]}
        assert path.read_bytes() == content[: ends[whole]]


@pytest.mark.parametrize("left", [b"\0" * 4096, b"\0" * 100 + b"\n", b'{"id": "b", \n\0\0\n"text"\n', b"\xff\xfe"])
def test_what_a_power_failure_left_at_the_end_is_removed(path: Path, left: bytes) -> None:
    content = write(path, LINES[:2])
    path.write_bytes(content + left)
    assert resumed(path) == {"a", "b"}
    assert path.read_bytes() == content


def test_what_failed_or_has_changed_is_taken_out(path: Path) -> None:
    content = write(path, LINES, failing="bd")
    changed = [line("e", "Who?") if one.id == "e" else one for one in LINES]
    assert resumed(path, reversed(changed)) == {"a", "c", "f"}
    lines = content.splitlines(keepends=True)
    assert path.read_bytes() == lines[0] + lines[2] + lines[5]
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("refused", [400, 404, 500])
def test_openais_lines_fail_by_their_status(path: Path, refused: int) -> None:
    with BatchOutput(path) as output:
        output.resume(table(LINES), BY)
        for one, status in zip(LINES[:2], (200, refused), strict=True):
            response = {"status_code": status, "request_id": "r", "body": {}}
            output.add(one, {"id": "batch_req_1", "custom_id": one.id, "response": response, "error": None})
        bad = BatchLine("line 9", None, mistake="the line is not JSON")
        output.add(bad, {"id": "batch_req_2", "custom_id": None, "response": None, "error": {"code": "bad_line"}})
    assert resumed(path) == {"a"}
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"id": "a", "answer": "x", "error": null}\n', "line 1, was not written by `flashsloth batch`"),
        (b'{"custom_id": "a", "method": "POST"}\n', "line 1, was not written by `flashsloth batch`"),
        (b"a text of somebody's\n\nand no more", "was not written by `flashsloth batch`"),
        (b"no line at all", "was not written by `flashsloth batch`"),
        (b'["JSON", "too"]\n{"id": 3}\n', "line 1: the line holds"),
        (b'{"id": "a", "flashsloth": {"asked": 3, "by": "x"}}\n', "line 1, was not written by"),
    ],
)
def test_a_file_of_somebody_elses_is_refused_and_left_alone(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(BatchError, match=said):
        resumed(path)
    assert path.read_bytes() == content


def test_a_file_of_another_batch_is_refused_and_left_alone(path: Path) -> None:
    content = write(path, LINES, failing="b")
    for lines, by, said in (
        (LINES, "1" * 32, "line 1, was answered by another model, or with other options"),
        (LINES[1:], BY, "line 1, answers 'a', which is not asked here"),
        (LINES[:1] + LINES[2:], BY, "line 2, answers 'b', which is not asked here"),
    ):
        with pytest.raises(BatchError, match=said):
            resumed(path, lines, by)
        assert path.read_bytes() == content
    doubled = content + content.splitlines(keepends=True)[0]
    path.write_bytes(doubled)
    with pytest.raises(BatchError, match="has 'a' twice, expected each id once"):
        resumed(path)
    lines = content.splitlines(keepends=True)
    broken = lines[0] + b"broken\n" + lines[2]
    path.write_bytes(broken)
    with pytest.raises(BatchError, match=r"line 2: the line is not JSON .*: choose another file"):
        resumed(path)
    assert path.read_bytes() == broken


def test_what_can_be_no_file_of_answers_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "is not a file"), (".", "is not a file"), ("none/out.jsonl", "there is no folder")):
        with pytest.raises(BatchError, match=said):
            BatchOutput(tmp_path / name)


def test_a_write_that_fails_in_the_midst_leaves_whole_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write(path, LINES[:2])
    real = os.write

    def half(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data[: len(data) - 10])

    with BatchOutput(path) as output:
        output.resume(table(LINES), BY)
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OSError, match=r"No space left on device.*out\.jsonl"):
            output.add(LINES[2], answer(LINES[2]))
        assert path.read_bytes() == content
        monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:50]))  # a disk that takes little at a time
        output.add(LINES[2], answer(LINES[2]))
    assert resumed(path) == {"a", "b", "c"}


def hold(path: Path) -> None:
    """Have the file for ever."""
    with BatchOutput(path) as output:
        output.resume(table(LINES), BY)
        output.add(LINES[0], answer(LINES[0]))
        time.sleep(forked.SECONDS)


def test_a_second_run_is_kept_out_until_the_first_has_ended(path: Path) -> None:
    first = forked.Process(hold, path)
    until = time.monotonic() + forked.SECONDS
    while not (path.is_file() and path.read_bytes().endswith(b"\n")):
        assert time.monotonic() < until
        assert first.is_alive()
        time.sleep(forked.POLL_SECONDS)
    with pytest.raises(BatchError, match="is being written by another process: wait for it"):
        resumed(path)
    os.kill(first.pid, 9)
    assert first.join()
    assert resumed(path) == {"a"}
    assert os.listdir(path.parent) == [path.name]


def test_a_lock_that_was_removed_meanwhile_does_not_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening of the file of locks and the locking, its last holder ends and takes it away."""
    from flashsloth.serving import batch_output

    lock = path.with_name(f".{path.name}.lock")
    real, calls = batch_output.lock_file, []

    def lock_file(descriptor: int, *, wait: bool) -> None:
        if not calls:
            lock.unlink()
        calls.append(descriptor)
        real(descriptor, wait=wait)

    monkeypatch.setattr(batch_output, "lock_file", lock_file)
    with BatchOutput(path):
        assert len(calls) == 2
        assert os.path.samestat(os.fstat(calls[1]), lock.stat())
    assert not lock.exists()
