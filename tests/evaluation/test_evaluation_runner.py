"""A run of a benchmark with the small model: whole, in parts, killed and resumed, limited, with broken pictures."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pytest
from drawn_pope import draw_pope

from flashsloth.evaluation import run_folder
from flashsloth.evaluation.answerer import FlashSlothAnswerer, load_flashsloth
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.predictions import PREDICTIONS, read_files, write_prediction
from flashsloth.evaluation.run_folder import Part
from flashsloth.evaluation.runner import MOST_ALIKE, Outcome, read_items, run, share_of, whole_groups
from flashsloth.evaluation.settings import settings_of
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import make_task
from flashsloth.media import PictureError

COUNT, KILLED_AFTER = 12, 5
POPE = settings_of("pope")


@pytest.fixture(scope="module")
def nano() -> FlashSlothAnswerer:
    return load_flashsloth(None, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pope(tmp_path_factory.mktemp("pope"))


@pytest.fixture(scope="module")
def items(data: Path) -> list[Item]:
    return read_items(make_task("pope"), data, None, 0)


@pytest.fixture(scope="module")
def whole(nano: FlashSlothAnswerer, items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done: list[tuple[int, int]] = []
    outcome = run(POPE, items, nano, folder, progress=lambda *counts: done.append(counts))
    assert (outcome.merged, outcome.is_whole, outcome.failures) == (True, True, {})
    assert done == [(number, COUNT) for number in range(1, COUNT + 1)]
    assert outcome.seconds is not None
    assert outcome.seconds > 0
    return folder


def test_a_run_keeps_what_scoring_needs(whole: Path, items: list[Item], nano: FlashSlothAnswerer) -> None:
    header, predictions, _ = read_files([whole / PREDICTIONS])
    assert [one.id for one in predictions] == [item.id for item in items]
    assert [one.truth for one in predictions] == [item.truth for item in items]
    assert all(one.answer.strip() and one.tokens and one.finish_reason == "stop" for one in predictions)
    assert (header["model"], header["seed"], header["limit"]) == (nano.describe(), 0, None)
    assert not any("<" in one.answer for one in predictions)  # as end tokens have it
    assert header["model"]["digest"].startswith("sha256:")
    assert header["settings"]["max_tokens"] == POPE.max_tokens
    assert {"flashsloth", "torch", "transformers"} <= set(header["versions"])
    assert b"seconds" not in (whole / PREDICTIONS).read_bytes()


def test_parts_are_whole_pictures_and_make_up_everything(items: list[Item]) -> None:
    for count in (1, 2, 3, 5):
        shares = [share_of(items, Part(number, count)) for number in range(1, count + 1)]
        assert sorted(place for share in shares for place, _ in share) == list(range(COUNT))
        pictures = [{item.picture for _, item in share} for share in shares]
        assert sum(map(len, pictures)) == len(set().union(*pictures))


def test_parts_that_share_a_folder_give_the_file_of_one(
    tmp_path: Path, nano: FlashSlothAnswerer, items: list[Item], whole: Path
) -> None:
    outcomes = [run(POPE, items, nano, tmp_path, part=Part(number, 3)) for number in (2, 3, 1)]
    assert [one.merged for one in outcomes] == [False, False, True]
    assert (tmp_path / PREDICTIONS).read_bytes() == (whole / PREDICTIONS).read_bytes()


def run_until_stopped(data: Path, folder: Path) -> None:
    """A run that stops for ever when so many answers are written, and half of another."""
    written = 0

    def write(file: Any, prediction: Any) -> None:
        nonlocal written
        write_prediction(file, prediction)
        written += 1
        if written == KILLED_AFTER:
            file.write('{"id": "adver')
            file.flush()
            time.sleep(forked.SECONDS)

    run_folder.write_prediction = write
    run(POPE, read_items(make_task("pope"), data, None, 0), load_flashsloth(None, device="cpu"), folder)


def test_after_a_kill_another_number_of_parts_gives_the_same_file(
    tmp_path: Path, data: Path, nano: FlashSlothAnswerer, items: list[Item], whole: Path
) -> None:
    process = forked.Process(run_until_stopped, data, tmp_path)
    part = tmp_path / "predictions.part-1-of-1.jsonl"
    until = time.monotonic() + forked.SECONDS
    while not (part.is_file() and part.read_bytes().endswith(b'{"id": "adver')):
        assert process.is_alive()
        assert time.monotonic() < until
        time.sleep(forked.POLL_SECONDS)
    os.kill(process.pid, signal.SIGKILL)
    assert process.join()
    assert part.read_bytes().count(b"\n") == 1 + KILLED_AFTER
    asked: list[int] = []
    for number in (1, 2, 3):
        counts: list[tuple[int, int]] = []
        outcome = run(
            POPE, items, nano, tmp_path, part=Part(number, 3), progress=lambda *one, to=counts: to.append(one)
        )
        asked.append(len(counts))
        assert outcome.merged == (number == 3)
    assert sum(asked) == COUNT - KILLED_AFTER
    assert (tmp_path / PREDICTIONS).read_bytes() == (whole / PREDICTIONS).read_bytes()


def test_a_limit_takes_whole_groups_and_is_drawn_by_the_seed(data: Path) -> None:
    class Pairs(type(make_task("pope"))):  # type: ignore[misc]
        def read(self, folder: Path) -> Iterator[Item]:
            for item in super().read(folder):
                yield Item(item.id, item.prompt, item.pictures, item.truth, item.picture, item.picture)

    task = Pairs(POPE)
    drawn = read_items(task, data, 4, 0)
    assert len(drawn) == 6  # two groups of three
    assert len({item.group for item in drawn}) == 2
    assert drawn == read_items(task, data, 4, 0)
    assert [item.id for item in drawn] == [item.id for item in read_items(task, data, None, 0) if item in drawn]
    assert len({tuple(one.id for one in read_items(task, data, 4, seed)) for seed in range(8)}) > 1
    assert len(read_items(task, data, 100, 0)) == COUNT
    with pytest.raises(EvaluationError, match="--limit is 0; expected at least 1"):
        read_items(task, data, 0, 0)


@pytest.fixture
def broken(tmp_path: Path) -> tuple[list[Item], Path]:
    """The same questions, one picture of which cannot be decoded; and that picture."""
    folder = draw_pope(tmp_path / "broken")
    picture = folder / "val2014" / "COCO_val2014_000000000001.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    return read_items(make_task("pope"), folder, None, 0), picture


def test_what_cannot_be_answered_is_named_and_asked_again(
    tmp_path: Path, broken: tuple[list[Item], Path], nano: FlashSlothAnswerer, whole: Path
) -> None:
    items, picture = broken
    out = tmp_path / "out"
    outcome = run(POPE, items, nano, out)
    assert sorted(outcome.failures) == sorted(item.id for item in items if item.picture == picture.stem)
    assert all(isinstance(error, PictureError) for error in outcome.failures.values())
    assert not outcome.is_whole
    assert not (out / PREDICTIONS).exists()
    assert len(whole_groups(items, outcome.answered)) == COUNT - 3
    picture.write_bytes((draw_pope(tmp_path / "sound") / "val2014" / picture.name).read_bytes())
    again = run(POPE, items, nano, out)
    assert again.merged
    assert (out / PREDICTIONS).read_bytes() == (whole / PREDICTIONS).read_bytes()


def test_a_prompt_that_is_too_long_is_an_item_that_failed(
    tmp_path: Path, nano: FlashSlothAnswerer, items: list[Item]
) -> None:
    first = items[0]
    long = Item(first.id, "word " * 100_000, first.pictures, first.truth, first.group, first.picture)
    outcome = run(POPE, [long, *items[1:]], nano, tmp_path)
    assert list(outcome.failures) == [first.id]
    assert len(outcome.answered) == COUNT - 1


def unreadable() -> bytes:
    raise EvaluationError("there is nothing to read")


def test_where_everything_fails_alike_the_rest_is_not_asked(
    tmp_path: Path, nano: FlashSlothAnswerer, items: list[Item]
) -> None:
    many = [
        Item(f"{number}", "What?", (unreadable,), items[0].truth, f"{number}", f"{number}")
        for number in range(2 * MOST_ALIKE)
    ]
    outcome: Outcome = run(POPE, many, nano, tmp_path / "alike")
    assert outcome.gave_up
    assert len(outcome.failures) == MOST_ALIKE
    missing = [replace(item, pictures=(tmp_path / f"{item.id}.png",)) for item in many]
    outcome = run(POPE, missing, nano, tmp_path / "each its own")
    assert not outcome.gave_up
    assert len(outcome.failures) == len(many)


def test_a_group_with_a_missing_answer_does_not_count(items: list[Item], whole: Path) -> None:
    pairs = [replace(item, group=str(place // 2)) for place, item in enumerate(items)]
    answered = [replace(one, group=str(one.place // 2)) for one in read_files([whole / PREDICTIONS])[1]]
    assert [one.place for one in whole_groups(pairs, answered[:3] + answered[4:])] == [0, 1, *range(4, COUNT)]
    assert whole_groups(pairs, answered) == answered


def test_another_model_is_refused(tmp_path: Path, nano: FlashSlothAnswerer, items: list[Item], whole: Path) -> None:
    other = load_flashsloth(None, device="cpu", dtype="bfloat16")
    with pytest.raises(EvaluationError, match=r"model\.dtype is 'float32' there and 'bfloat16' here"):
        run(POPE, items, other, whole)
    with pytest.raises(EvaluationError, match="preset is 'paper' there and 'llava' here"):
        run(settings_of("pope", "llava"), items, nano, whole)


def test_drawn_answers_come_back_with_the_seed(tmp_path: Path, nano: FlashSlothAnswerer, items: list[Item]) -> None:
    warm = settings_of("mmvet")
    assert warm.temperature > 0
    texts = []
    for number, seed in enumerate((1, 1, 2)):
        run(warm, items, nano, tmp_path / f"{number}", seed=seed)
        texts.append((tmp_path / f"{number}" / PREDICTIONS).read_bytes())
    assert texts[0] == texts[1] != texts[2]
