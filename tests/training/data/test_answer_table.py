"""A table of answers becomes LLaVA's JSON, or says which rows are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from flashsloth.training.data import conversations
from flashsloth.training.data.answer_table import TableError, read_table, write_training_data
from flashsloth.training.recipe_fields import DataSource

HEADER = "image,question,answer\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def table(folder: Path, text: str, name: str = "answers.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def rows_of(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf-8"))


def test_it_is_what_training_reads(folder: Path) -> None:
    lines = [f'{n}.png,What is it?,"a toy, number {n}"\n{n}.png,Which shelf?,{n}\n' for n in range(10)]
    split = write_training_data(table(folder, HEADER + "".join(lines)), folder, folder / "out", held_out=0.2)
    assert (split.train_rows, split.train_pictures, split.held_out_rows, split.held_out_pictures) == (16, 8, 4, 2)
    assert split.held_out is not None
    train, held_out = rows_of(split.train), rows_of(split.held_out)
    assert not {row["image"] for row in train} & {row["image"] for row in held_out}
    for file, rows in ((split.train, train), (split.held_out, held_out)):
        data = conversations([DataSource(json=str(file), images=str(folder))])
        assert len(data) == len(rows)
        for index, row in enumerate(rows):
            question, answer = data[index].messages
            number = int(row["image"].removesuffix(".png"))
            with Image.open(question["content"][0]["image"]) as opened:
                assert opened.getpixel((0, 0)) == (number * 20, 0, 0)
            assert question["content"][1]["text"] in ("What is it?", "Which shelf?")
            assert answer["content"] in (f"a toy, number {number}", str(number))


def test_which_pictures_are_held_out_does_not_hang_on_the_order(folder: Path) -> None:
    lines = [f"{n}.png,What?,{n}\n" for n in range(10)]
    held = []
    for name, ordered in (("a.csv", lines), ("b.csv", lines[::-1])):
        split = write_training_data(table(folder, HEADER + "".join(ordered), name), folder, folder / name[0], 0.3)
        assert split.held_out is not None
        held.append({row["image"] for row in rows_of(split.held_out)})
    assert held[0] == held[1]
    assert len(held[0]) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "\ufeffanswer;question;image;note\r\nred;Which?;0.png;x\r\nyes;Sure?;;x\r\n"),
        ("a.tsv", "image\tquestion\tanswer\n0.png\tWhich?\tred\n\tSure?\tyes\n"),
        (
            "a.jsonl",
            '{"image": "0.png", "question": "Which?", "answer": "red", "by": "me"}\n\n'
            '{"image": null, "question": "Sure?", "answer": "yes"}\n',
        ),
    ],
    ids=["semicolons and a byte-order mark", "tabs", "JSON Lines"],
)
def test_tables_as_programs_write_them(folder: Path, name: str, text: str) -> None:
    rows = read_table(table(folder, text, name))
    assert [(row.image, row.question, row.answer) for row in rows] == [("0.png", "Which?", "red"), ("", "Sure?", "yes")]
    split = write_training_data(folder / name, folder, folder / "out", held_out=0)
    assert split.held_out is None
    with_picture, without = rows_of(split.train)
    assert with_picture["conversations"][0]["value"] == "<image>\nWhich?"
    assert "image" not in without
    assert without["conversations"][0]["value"] == "Sure?"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "expected image, question, answer in its first line"),
        ("a.csv", HEADER, "has no rows"),
        ("a.csv", "picture,question,answer\n", "has the columns ['picture', 'question', 'answer'], expected image"),
        ("a.csv", HEADER + "0.png,a,b\n0.png,Is it red, or blue?,red\n", "line 3: not as many cells as the header has"),
        ("a.csv", HEADER + "0.png,a\n", "line 2: not as many cells"),
        ("a.csv", HEADER + "99.png,a,b\n", "line 2: there is no"),
        ("a.csv", HEADER + "0.png,a, \n", "line 2: its answer is empty"),
        ("a.csv", HEADER + "0.png,,b\n", "line 2: its question is empty"),
        ("a.csv", HEADER + "0.png,<image> what?,b\n", "line 2: its question holds <image>"),
        ("a.csv", HEADER + "99.png,a,b\n" * 9, "; and 4 more"),
        ("a.csv", HEADER + "0.png,a,b\n", "has one picture, which is held out"),
        ("a.jsonl", "[1]\n", "line 1: found list, expected an object with image, question, answer"),
        ("a.jsonl", '{"image": "0.png", "quesiton": "a", "answer": "b"}\n', "line 1: found ['answer', 'image'"),
        ("a.jsonl", '{"image": "0.png", "question": "a", "answer": 3}\n', "answer is 3, expected a text"),
        ("a.jsonl", "no\n", "line 1: not JSON"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(TableError) as error:
        write_training_data(table(folder, text, name), folder, folder / "out")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (folder / "out").exists()


def test_a_file_that_is_no_table(folder: Path) -> None:
    with pytest.raises(TableError, match="no table at"):
        read_table(folder / "absent.csv")
    (folder / "a.csv").write_bytes(b"image,question,answer\n0.png,\xff,b\n")
    with pytest.raises(TableError, match="is not UTF-8"):
        read_table(folder / "a.csv")
    with pytest.raises(TableError, match="held_out is 1"):
        write_training_data(folder / "a.csv", folder, folder / "out", held_out=1)


def test_a_header_may_be_in_capitals(folder: Path) -> None:
    rows = read_table(table(folder, "Image,Question,ANSWER\n,Hi,Ho\n"))
    assert [(row.question, row.answer) for row in rows] == [("Hi", "Ho")]
