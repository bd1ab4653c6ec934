"""The folder of a run: parts that share it, what a killed process leaves, and what does not belong there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest

from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.predictions import PREDICTIONS, data_digest, read_files
from flashsloth.evaluation.run_folder import EVERYTHING, Part, RunFolder, part_of
from flashsloth.evaluation.task import EvaluationError

COUNT = 6
ANSWERS = [
    Prediction(f"item {place}", "What?", {"label": "yes"}, f"group {place}", f"picture {place}", "Yes", 2, place=place)
    for place in range(COUNT)
]
HEADER: dict[str, Any] = {
    "task": "pope",
    "preset": "paper",
    "model": {"name": "nano", "dtype": "float32"},
    "data": {"items": COUNT, "digest": data_digest(ANSWERS)},
}


def answer(folder: Path, part: Part, places: range, header: dict[str, Any] = HEADER) -> bool:
    """Answer some items as a part; whether all were there then."""
    with RunFolder(folder, header, part) as kept:
        for place in places:
            if ANSWERS[place].id not in kept.answered:
                kept.add(ANSWERS[place])
        return kept.merge()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The file of a run that was never interrupted."""
    assert answer(tmp_path / "whole", EVERYTHING, range(COUNT))
    return (tmp_path / "whole" / PREDICTIONS).read_bytes()


def test_parts_in_any_order_make_the_same_file(tmp_path: Path, whole: bytes) -> None:
    folder = tmp_path / "parts"
    assert not answer(folder, Part(3, 3), range(4, 6))
    assert not answer(folder, Part(1, 3), range(2))
    assert not (folder / PREDICTIONS).exists()
    assert answer(folder, Part(2, 3), range(2, 4))
    assert (folder / PREDICTIONS).read_bytes() == whole
    assert {path.name for path in folder.iterdir()} == {PREDICTIONS, ".lock"}
    assert not answer(folder, EVERYTHING, range(COUNT))  # nothing is left to do
    assert (folder / PREDICTIONS).read_bytes() == whole


@pytest.mark.parametrize("left", [b"", b'{"header": {"for', b"HEADER", b"HEADER+torn"])
def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path, whole: bytes, left: bytes) -> None:
    lines = whole.splitlines(keepends=True)
    part = tmp_path / "predictions.part-1-of-1.jsonl"
    left = left.replace(b"HEADER", b"".join(lines[:3])).replace(b"+torn", lines[3][:-1])
    part.write_bytes(left)
    with RunFolder(tmp_path, HEADER, EVERYTHING) as kept:
        assert len(kept.answered) == max(0, left.count(b"\n") - 1)
    assert answer(tmp_path, EVERYTHING, range(COUNT))
    assert (tmp_path / PREDICTIONS).read_bytes() == whole


def test_others_torn_lines_count_for_nothing(tmp_path: Path, whole: bytes) -> None:
    lines = whole.splitlines(keepends=True)
    (tmp_path / "predictions.part-2-of-4.jsonl").write_bytes(b"".join([*lines[:4], lines[4][:9]]))
    assert not answer(tmp_path, Part(1, 2), range(4))
    assert answer(tmp_path, Part(2, 2), range(4, 6))
    assert (tmp_path / PREDICTIONS).read_bytes() == whole


def test_who_ends_between_merging_and_removing_parts_does_no_harm(tmp_path: Path, whole: bytes) -> None:
    lines = whole.splitlines(keepends=True)
    (tmp_path / PREDICTIONS).write_bytes(whole)
    (tmp_path / "predictions.part-1-of-1.jsonl").write_bytes(b"".join(lines[:4]))
    assert answer(tmp_path, EVERYTHING, range(COUNT))
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".jsonl"] == [PREDICTIONS]
    assert (tmp_path / PREDICTIONS).read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "llava"}, "preset is 'paper' there and 'llava' here"),
        ({"model": {"name": "nano", "dtype": "bfloat16"}}, r"model\.dtype is 'float32' there and 'bfloat16' here"),
        ({"data": {"items": COUNT, "digest": "other"}}, r"data\.digest is"),
        ({"limit": 5}, "limit is None there and 5 here"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    answer(tmp_path, EVERYTHING, range(2))
    with pytest.raises(EvaluationError, match=said):
        answer(tmp_path, EVERYTHING, range(2), {**HEADER, **change})


def test_an_answer_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    answer(tmp_path / "one", Part(1, 2), range(3))
    answer(tmp_path / "other", Part(2, 2), range(2, 6))
    other = tmp_path / "other" / "predictions.part-2-of-2.jsonl"
    other.rename(tmp_path / "one" / other.name)
    with pytest.raises(EvaluationError, match=r"'item 2' twice, the second time in predictions\.part-2-of-2\.jsonl"):
        answer(tmp_path / "one", Part(1, 2), range(0))


def test_an_answer_to_something_else_is_not_merged(tmp_path: Path) -> None:
    answer(tmp_path, EVERYTHING, range(COUNT - 1))
    part = tmp_path / "predictions.part-1-of-1.jsonl"
    part.write_bytes(part.read_bytes().replace(b'"label": "yes"', b'"label": "no"', 1))
    with pytest.raises(EvaluationError, match="it was changed"):
        answer(tmp_path, EVERYTHING, range(COUNT))
    assert not (tmp_path / PREDICTIONS).exists()


def test_a_missing_answer_is_no_whole_run(tmp_path: Path) -> None:
    answer(tmp_path, EVERYTHING, range(COUNT - 2))
    with pytest.raises(EvaluationError, match=r"lacks 2 of 6 answers \(number 5, 6 of the data"):
        read_files([tmp_path / "predictions.part-1-of-1.jsonl"])


def hold(folder: Path, part: Part) -> None:
    """Answer one question as a part, and then be at it for ever."""
    with RunFolder(folder, HEADER, part) as kept:
        kept.add(ANSWERS[0])
        time.sleep(forked.SECONDS)


def wait_for(found: Callable[[], bool]) -> None:
    """Until something is there."""
    until = time.monotonic() + forked.SECONDS
    while not found():
        assert time.monotonic() < until
        time.sleep(forked.POLL_SECONDS)


def test_who_is_at_a_part_keeps_others_from_it(tmp_path: Path) -> None:
    at_work = forked.Process(hold, tmp_path, Part(1, 2))
    own = tmp_path / "predictions.part-1-of-2.jsonl"
    wait_for(lambda: own.is_file() and own.read_bytes().count(b"\n") == 2)
    for part in (Part(1, 2), Part(1, 3), EVERYTHING):
        with pytest.raises(EvaluationError, match="another process answers part 1 of 2 in"):
            answer(tmp_path, part, range(COUNT))
    assert not answer(tmp_path, Part(2, 2), range(3, 6))
    assert at_work.is_alive()


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        (None, {}, (1, 1)),
        ("3/8", {}, (3, 8)),
        (None, {"RANK": "2", "WORLD_SIZE": "4"}, (3, 4)),
        (None, {"RANK": "0", "WORLD_SIZE": "1"}, (1, 1)),
        ("2/2", {"RANK": "0", "WORLD_SIZE": "1"}, (2, 2)),
    ],
)
def test_the_part_is_asked_for_or_comes_from_a_launcher(
    text: str | None, environment: dict[str, str], part: tuple[int, int]
) -> None:
    assert part_of(text, environment) == part


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "1/0", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError, match="expected K/N"):
        part_of(text, {})


def test_two_parts_at_once_are_refused() -> None:
    with pytest.raises(EvaluationError, match="leave one of them out"):
        part_of("1/2", {"RANK": "1", "WORLD_SIZE": "2"})
