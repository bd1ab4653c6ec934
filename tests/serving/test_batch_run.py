"""A batch, answered by a small model: each answer is the one that the question gets alone."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from talkative import save_talkative

from flashsloth.evaluation.answerer import FlashSlothAnswerer, load_flashsloth
from flashsloth.inference.options import AnswerOptions
from flashsloth.serving.batch import BatchOutcome, read_asked, run_batch
from flashsloth.serving.batch_answerers import SimpleAnswerer
from flashsloth.serving.batch_lines import BatchError, BatchLine, BatchSource
from flashsloth.serving.batch_output import BatchOutput

COUNT = 12
OPTIONS: AnswerOptions = {"max_tokens": 6}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FlashSlothAnswerer:
    return load_flashsloth(str(save_talkative(tmp_path_factory.mktemp("checkpoint"))), device="cpu")


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    for number in range(3):
        tiny.picture(number).save(tmp_path / f"{number}.png")
    return [
        {"id": f"q{number}", "picture": f"{number % 3}.png", "question": f"What is {number}?"}
        for number in range(COUNT)
    ]


def run(
    model: FlashSlothAnswerer, source: Path, out: Path, options: AnswerOptions = OPTIONS, question: str | None = None
) -> BatchOutcome:
    asked = BatchSource(source, question)
    counted = read_asked(asked)
    with BatchOutput(out) as output:
        return run_batch(asked, counted, output, SimpleAnswerer(model, asked, options))


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> dict[Any, dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_each_answer_is_the_one_that_it_gets_alone(
    tmp_path: Path, model: FlashSlothAnswerer, rows: list[dict[str, Any]]
) -> None:
    outcome = run(model, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert outcome == BatchOutcome(COUNT, answered=COUNT)
    found = read(tmp_path / "out.jsonl")
    assert {*found} == {row["id"] for row in rows}
    for row in rows:
        alone = model.sloth.answer(tmp_path / row["picture"], row["question"], details=True, **OPTIONS)
        expected = {**row, "answer": alone.text, "finish_reason": str(alone.finish_reason), "error": None}
        expected |= {"tokens": len(alone.tokens), "resolution": "standard"}
        assert {name: value for name, value in found[row["id"]].items() if name != "flashsloth"} == expected
    assert len({row["answer"] for row in found.values()}) > 3


def test_only_what_is_missing_is_asked_however_the_lines_stand(
    tmp_path: Path, model: FlashSlothAnswerer, rows: list[dict[str, Any]]
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run(model, write(tmp_path / "in.jsonl", rows), whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    for kept in (0, 1, COUNT // 2, COUNT):
        random.Random(kept).shuffle(rows)
        out.write_bytes(b"".join(lines[:kept]) + (lines[kept][:-7] if kept < COUNT else b""))
        outcome = run(model, write(tmp_path / "in.jsonl", rows), out)
        assert outcome == BatchOutcome(COUNT, already=kept, answered=COUNT - kept)
        assert read(out) == read(whole)


def test_what_changed_or_failed_is_asked_again_and_nothing_else(
    tmp_path: Path, model: FlashSlothAnswerer, rows: list[dict[str, Any]]
) -> None:
    out = tmp_path / "out.jsonl"
    rows[1]["picture"] = "3.png"
    outcome = run(model, write(tmp_path / "in.jsonl", rows), out)
    assert outcome == BatchOutcome(COUNT, answered=COUNT - 1, failed=1)
    before = read(out)
    assert before["q1"]["answer"] is None
    assert before["q1"]["error"]["code"] == "failed"
    assert "3.png': no such file" in before["q1"]["error"]["message"]
    tiny.picture(3).save(tmp_path / "3.png")
    rows[2]["question"] = "Who?"
    outcome = run(model, write(tmp_path / "in.jsonl", rows), out)
    assert outcome == BatchOutcome(COUNT, already=COUNT - 2, asked_again=2, answered=2)
    after = read(out)
    assert after["q1"]["error"] is None
    assert after["q2"]["question"] == "Who?"
    assert {name for name in before if before[name] != after[name]} == {"q1", "q2"}
    with pytest.raises(BatchError, match="another model, or with other options"):
        run(model, tmp_path / "in.jsonl", out, {"max_tokens": 5})
    assert read(out) == after


def test_lines_that_cannot_be_asked_or_answered_harm_no_other(
    tmp_path: Path, model: FlashSlothAnswerer, rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    url = f"data:image/png;base64,{base64.b64encode((tmp_path / '1.png').read_bytes()).decode()}"
    good = {"id": "data", "picture": url, "question": "What is 1?"}
    bad = {
        "broken": {"picture": "broken.png", "question": "What?"},
        "url": {"picture": "http://127.0.0.1/x.png", "question": "What?"},
        "base64": {"picture": "data:image/png;base64,!!!", "question": "What?"},
        "long": {"picture": "0.png", "question": "word " * 100_000},
        "half": {"picture": "0.png", "question": "a\ud800b"},
        "no picture": {"question": "What?"},
    }
    asked = [{"id": name, **row} for name, row in bad.items()]
    path = write(tmp_path / "in.jsonl", [*rows[:3], *asked, *rows[3:], good])
    with path.open("ab") as file:
        file.write(b"no JSON\n")
    outcome = run(model, path, tmp_path / "out.jsonl")
    assert outcome == BatchOutcome(COUNT + 8, answered=COUNT + 1, failed=7)
    found = read(tmp_path / "out.jsonl")
    assert {name for name, row in found.items() if row["error"] is not None} == {*bad, None}
    assert found[None]["error"] == {
        "code": "bad_line",
        "message": "line 20: the line is not JSON (Expecting value: line 1 column 1 (char 0))",
    }
    assert found["data"]["answer"] == found["q1"]["answer"]
    assert "picture" not in found["data"]
    for row in found.values():
        assert row["error"] is None or "\n" not in row["error"]["message"]


def test_a_folder_a_table_and_choices(tmp_path: Path, model: FlashSlothAnswerer, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (tmp_path / f"{number}.png").rename(folder / f"{number}.png")
    assert run(model, folder, tmp_path / "out.jsonl", question="What?").answered == 3
    assert {*read(tmp_path / "out.jsonl")} == {"0.png", "1.png", "2.png"}
    table = tmp_path / "in.csv"
    table.write_text("picture,question\npictures/0.png,What?\npictures/1.png,What?\n", encoding="utf-8")
    options: AnswerOptions = {"choices": ["yes", "no"]}
    assert run(model, table, tmp_path / "chosen.jsonl", options).answered == 2
    for row in read(tmp_path / "chosen.jsonl").values():
        assert row["answer"] in row["choices"]
        assert sum(row["choices"].values()) == pytest.approx(1)


def test_ids_that_are_there_twice_are_named(tmp_path: Path) -> None:
    rows = [{"id": name, "picture": "a.png", "question": "What?"} for name in ("a", "b", "a", 3, "3", "c", "a")]
    with pytest.raises(
        BatchError, match=r"has 2 ids more than once: 'a' \(line 1 and line 3 and line 7\), '3' \(line 4"
    ):
        read_asked(BatchSource(write(tmp_path / "in.jsonl", rows)))
    long = [{"id": "a" * 100_000, "picture": "a.png", "question": "What?"}] * 2
    with pytest.raises(BatchError, match=r"'a{39}… \(line 1 and line 2\)"):
        read_asked(BatchSource(write(tmp_path / "in.jsonl", long)))
    same = [{"picture": "a.png", "question": "What?"}, {"question": "What?", "image": "a.png"}]
    with pytest.raises(BatchError, match=r"\(line 1 and line 2\); expected each once \(a line without an id has its"):
        read_asked(BatchSource(write(tmp_path / "in.jsonl", same)))
    with pytest.raises(BatchError, match="holds no lines: there is nothing to ask"):
        read_asked(BatchSource(write(tmp_path / "in.jsonl", [])))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BatchError, match="holds no pictures"):
        read_asked(BatchSource(tmp_path / "empty", "What?"))


class Counting(BatchSource):
    """Counts lines that are read, for the most that were read before they were answered."""

    given = 0

    def __iter__(self) -> Iterator[BatchLine]:
        for line in super().__iter__():
            self.given += 1
            yield line


def test_no_more_is_read_than_is_being_answered(
    tmp_path: Path, model: FlashSlothAnswerer, rows: list[dict[str, Any]]
) -> None:
    many = [{**rows[number % COUNT], "id": number} for number in range(200)]
    source = Counting(write(tmp_path / "in.jsonl", many))
    counted = read_asked(source)
    source.given = most = 0

    def progress(done: int, total: int) -> None:
        nonlocal most
        assert total == 200
        most = max(most, source.given - done)

    with BatchOutput(tmp_path / "out.jsonl") as output:
        outcome = run_batch(source, counted, output, SimpleAnswerer(model, source, {"max_tokens": 1}), progress)
    assert outcome.answered == 200
    assert most <= model.sloth.config.max_rows
