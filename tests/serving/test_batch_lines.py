"""What a batch asks: every kind of file, and every kind of line that cannot be asked."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from flashsloth.serving import batch_lines
from flashsloth.serving.batch_lines import BatchError, BatchLine, BatchSource

QUESTION = "What is this?"
DATA_URL = "data:image/png;base64,aGFsbG8="


def written(path: Path, *lines: Any) -> Path:
    path.write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines), encoding="utf-8"
    )
    return path


def openai(name: Any, **changes: Any) -> dict[str, Any]:
    body = {"model": "nano", "messages": [{"role": "user", "content": "Hello"}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body, **changes}


def only(path: Path, question: str | None = None) -> BatchLine:
    [line] = BatchSource(path, question)
    return line


def test_simple_lines_and_what_they_may_be_called(tmp_path: Path) -> None:
    source = BatchSource(
        written(
            tmp_path / "in.jsonl",
            {"id": "a", "picture": "one.png", "question": "What?", "truth": "of no concern"},
            {"id": 7, "image": DATA_URL, "question": "Who?"},
            {"picture": ["one.png", "/two.png"]},
            "",
        ),
        QUESTION,
    )
    first, second, third = source
    assert (first.id, first.asked) == ("a", {"picture": "one.png", "question": "What?"})
    assert (source.picture(first), source.picture(second)) == (str(tmp_path / "one.png"), DATA_URL)
    assert source.picture(third) == [str(tmp_path / "one.png"), "/two.png"]
    assert second.id == 7
    assert third.asked["question"] == QUESTION
    assert third.id == third.digest.hex()
    assert source.shown(first) == first.asked
    assert source.shown(second) == {"question": "Who?"}
    assert [line.place for line in source] == ["line 1", "line 2", "line 3"]


def test_a_line_is_known_by_what_it_asks_wherever_it_stands_and_however_it_is_written(tmp_path: Path) -> None:
    rows = [{"picture": f"{number}.png", "question": QUESTION} for number in range(20)]
    before = {line.id: line.digest for line in BatchSource(written(tmp_path / "in.jsonl", *rows))}
    random.Random(0).shuffle(rows)
    other_way = [json.dumps(dict(reversed(row.items())), indent=None, separators=(" ,  ", ":")) for row in rows]
    assert {line.id: line.digest for line in BatchSource(written(tmp_path / "in.jsonl", *other_way))} == before
    assert len(before) == 20


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "the line is not JSON"),
        ('"text"', "the line holds 'text'; expected an object"),
        ("[" * 100_000, "the line is not JSON"),
        ({"question": "What?"}, "there is no picture; expected a path or a data URL, or a list of those"),
        ({"picture": None, "question": "What?"}, "there is no picture"),
        ({"picture": 3, "question": "What?"}, "picture is 3; expected a path"),
        ({"picture": [], "question": "What?"}, r"picture is \[\]; expected a path"),
        ({"picture": ["a.png", ""], "question": "What?"}, "picture is"),
        ({"picture": "a.png"}, "there is no question; expected a text that is not empty, or --question"),
        ({"picture": "a.png", "question": " "}, "question is ' '"),
        ({"picture": "a.png", "question": ["What?"]}, r"question is \['What\?'\]"),
        ({"id": True, "picture": "a.png", "question": "What?"}, "id is True; expected a text or a whole number"),
        ({"id": "", "picture": "a.png", "question": "What?"}, "id is ''"),
    ],
)
def test_a_simple_line_that_cannot_be_asked_says_why(tmp_path: Path, line: Any, said: str) -> None:
    good, bad, also_good = BatchSource(
        written(
            tmp_path / "in.jsonl",
            {"picture": "a.png", "question": "Who?"},
            line,
            {"picture": "b.png", "question": "Who?"},
        )
    )
    assert good.mistake is also_good.mistake is None
    assert bad.mistake is not None
    assert re.match(said, bad.mistake), bad.mistake
    assert "\n" not in bad.mistake
    assert bad.place == "line 2"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"picture": "a.png", "question": "Gr\xc3\xb6\xc3\x9fe?"}\n{"picture": "\xff"}\n\x00\n'
    )
    good, second, third = BatchSource(path)
    assert good.asked["question"] == "Größe?"
    assert second.mistake is not None
    assert "not JSON" in second.mistake
    assert third.mistake is not None


@pytest.mark.parametrize("longest", [200, 201, 1000])
def test_a_line_that_is_too_long_is_skipped_without_being_held(
    tmp_path: Path, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_lines, "LINE_BYTES", 200)
    monkeypatch.setattr(batch_lines, "SKIPPED_BYTES", 7)
    good = {"picture": "a.png", "question": "Who?"}
    long = json.dumps({"picture": "a.png", "question": ""})
    long = long.replace('""', '"' + "x" * (longest - len(long) - 1) + '"')  # with its line break `longest` bytes
    first, second, third = BatchSource(written(tmp_path / "in.jsonl", {**good, "id": 1}, long, {**good, "id": 2}))
    assert (first.id, third.id) == (1, 2)
    assert (second.mistake is None) == (longest <= 200)
    if second.mistake:
        assert second.mistake == "the line is longer than 200 bytes"


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,image,question,note\r\n"
        b'a,one.png,"What, and\nwho?",x\r\n'
        b",two.png,,\r\n"
        b"c,,Who?,\r\n"
        b"d,four.png,Who?,x,too,many\r\n"
        b"e,five.png,\xff,\r\n"
        b'f,six.png,"never closed'
    )
    source = BatchSource(path, QUESTION)
    first, second, third, fourth, fifth, sixth = source
    assert first == BatchLine("line 3", "a", {"picture": "one.png", "question": "What, and\nwho?"}, first.digest)
    assert second.asked["question"] == QUESTION
    assert second.id == second.digest.hex()
    assert (third.id, third.mistake) == (
        "c",
        "there is no picture; expected a path or a data URL, or a list of those",
    )
    assert fourth.asked["picture"] == "four.png"
    assert fifth.mistake == "the row is not UTF-8"
    assert sixth.asked["question"] == "never closed"
    assert [line.mistake is None for line in source] == [True, True, False, True, False, True]


def test_a_row_that_is_too_long_does_not_end_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "LINE_BYTES", 100)
    path = tmp_path / "in.csv"
    path.write_text(f"picture,question\na.png,Who?\nb.png,{'x' * 101}\nc.png,Who?\n", encoding="utf-8")
    first, second, third = BatchSource(path)
    assert second.mistake is not None
    assert "the row cannot be read" in second.mistake
    assert (first.asked["picture"], third.asked["picture"]) == ("a.png", "c.png")


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "notes.txt", ".hidden.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    source = BatchSource(tmp_path, QUESTION)
    assert [line.id for line in source] == ["a.png", "b.JPG", "deep/er/c.webp"]
    assert {line.asked["question"] for line in source} == {QUESTION}
    assert source.picture(next(iter(source))) == str(tmp_path / "a.png")
    with pytest.raises(BatchError, match="give --question, which is asked about each"):
        BatchSource(tmp_path)


def test_openais_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", "no JSON", openai("a"), openai("b", url="/v1/elsewhere"))
    source = BatchSource(path)
    bad, first, second = source
    assert source.is_openai
    assert bad.mistake is not None
    assert first.id == "a"
    assert first.asked == {name: openai("a")[name] for name in ("method", "url", "body")}
    assert second.mistake is None  # the server's business
    assert first.digest != second.digest
    with pytest.raises(BatchError, match="leave --question out"):
        BatchSource(path, QUESTION)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (openai(7), "custom_id is 7; expected a text that is not empty"),
        (openai(""), "custom_id is ''"),
        ({"picture": "a.png", "question": "What?"}, "custom_id is None"),
        (openai("b", method="GET"), "method is 'GET'; expected 'POST'"),
        (openai("b", url=None), "url is None; expected a text such as '/v1/chat/completions'"),
        (openai("b", body="text"), "body is 'text'; expected an object"),
        (openai("b", body=["x" * 10_000]), "body is ['xxx"),
    ],
)
def test_a_line_of_openais_that_cannot_be_asked_says_why(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    _, bad = BatchSource(written(tmp_path / "in.jsonl", openai("a"), line))
    assert bad.mistake is not None
    assert bad.mistake.startswith(said)
    assert len(bad.mistake) < 120
    assert bad.id == (line.get("custom_id") if line.get("custom_id") == "b" else None)


def test_what_no_batch_can_be_of_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, content, said in (
        ("none.jsonl", None, "there is no such file or folder"),
        ("pipe.jsonl", None, "is not a file, and a batch is read twice"),
        ("in.txt", "x", "ends in '.txt'; expected one of .jsonl"),
        ("in.csv", "question,id\nWhat?,1\n", r"has the columns \['question', 'id'\]; expected picture or image"),
        ("empty.csv", "", r"has the columns \[\]"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(BatchError, match=said):
            list(BatchSource(tmp_path / name))
    with pytest.raises(BatchError, match="--question is empty"):
        BatchSource(tmp_path, " ")
