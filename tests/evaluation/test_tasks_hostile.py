"""Files that are not what their names say are refused in one line; nothing is skipped, and no traceback is shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from drawn_benchmarks import LAYOUTS, hub, shown

from flashsloth.evaluation.data_files import find_file
from flashsloth.evaluation.settings import LLAVA, PAPER
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import make_task

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
WITH_LLAVAS_PRESET = {("pope", "llava"), ("textvqa", "rosetta"), ("textvqa", "llava")}
DRAWN = [(task, layout) for task, layouts in LAYOUTS.items() for layout in layouts]
OWN = [pair for pair in DRAWN if pair[1] != "hub"]
WRONG: tuple[Any, ...] = (17, None, [], {}, "", "x" * 5000, [17], {"a": 1}, True, -1.5)
DEEPEST = 4
MAY_BE_EMPTY = {("mmbench", "hint"), ("mmbench", "C"), ("mmbench", "D")}


def read(name: str, layout: str, folder: Path) -> None:
    task = make_task(name, LLAVA if (name, layout) in WITH_LLAVAS_PRESET else PAPER)
    items = list(task.read(folder))
    if not items:
        raise EvaluationError("nothing is asked")  # as a run of it says
    for item in items:
        for one in item.pictures:
            assert one() if callable(one) else one.is_file()


def refusal(name: str, layout: str, folder: Path) -> str:
    with pytest.raises(EvaluationError) as caught:
        read(name, layout, folder)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said.replace(str(folder), "")) < 700
    return said


def is_refused(name: str, layout: str, folder: Path) -> bool:
    """In one line, if at all; any other error is a failure."""
    said = ""
    try:
        read(name, layout, folder)
    except EvaluationError as error:
        said = str(error)
    assert "\n" not in said
    return bool(said)


def data_files(folder: Path) -> list[Path]:
    """Of a layout, what is not a picture."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".tsv", ".txt", ".parquet"))


def read_files(name: str, layout: str, folder: Path) -> list[Path]:
    """Of these, what the task reads: not what stands in another split's place."""
    return [path for path in data_files(folder) if "other" not in path.parts and not path.name.startswith("train-")]


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder(name: str, tmp_path: Path) -> None:
    said = refusal(name, "", tmp_path)
    task = make_task(name)
    assert task.files in said
    assert ", ".join(task.columns) in said
    refusal(name, "", tmp_path / "none")


@pytest.mark.parametrize(("name", "layout"), DRAWN)
def test_a_file_that_was_not_fetched(name: str, layout: str, tmp_path: Path) -> None:
    LAYOUTS[name][layout](tmp_path)
    for path in read_files(name, layout, tmp_path):
        content = path.read_bytes()
        path.write_text(LFS)
        assert "LFS" in refusal(name, layout, tmp_path) or path.suffix == ".txt"
        path.write_bytes(content)
    read(name, layout, tmp_path)


@pytest.mark.parametrize(("name", "layout"), DRAWN)
def test_a_file_that_was_cut(name: str, layout: str, tmp_path: Path) -> None:
    LAYOUTS[name][layout](tmp_path)
    for path in read_files(name, layout, tmp_path):
        content = path.read_bytes()
        for kept in (0.3, 0.7):
            path.write_bytes(content[: int(kept * len(content))])
            refusal(name, layout, tmp_path)
        if path.suffix != ".parquet":
            path.write_bytes(b"\xff\xfe" + content[2:])
            refusal(name, layout, tmp_path)
        path.write_bytes(content)


@pytest.mark.parametrize(("name", "layout"), OWN)
def test_a_picture_that_is_missing(name: str, layout: str, tmp_path: Path) -> None:
    LAYOUTS[name][layout](tmp_path)
    pictures = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path not in data_files(tmp_path))
    for path in pictures:
        content = path.read_bytes()
        path.unlink()
        assert "has no picture" in refusal(name, layout, tmp_path)
        path.write_bytes(content)
    assert pictures or name == "mmbench"


def places(content: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON document, of lists the first two."""
    if depth < DEEPEST and isinstance(content, dict | list):
        for key in list(content)[:9] if isinstance(content, dict) else range(min(2, len(content))):
            yield content, key
            yield from places(content[key], depth + 1)


@pytest.mark.parametrize(("name", "layout"), [pair for pair in OWN if pair[0] not in ("mme", "mmbench")])
def test_wrong_types_in_json(name: str, layout: str, tmp_path: Path) -> None:
    """Whatever stands in a place, reading ends well or in plain words; what is needed cannot be left out."""
    LAYOUTS[name][layout](tmp_path)
    refused = 0
    for path in read_files(name, layout, tmp_path):
        text = path.read_text(encoding="utf-8")
        is_lines = path.suffix == ".jsonl" or path.name.startswith("coco_pope")
        content = [json.loads(line) for line in text.splitlines()] if is_lines else json.loads(text)
        for container, key in places(content):
            before = container[key]
            for wrong in WRONG:
                container[key] = wrong
                path.write_text("\n".join(map(json.dumps, content)) if is_lines else json.dumps(content))
                refused += is_refused(name, layout, tmp_path)
            container[key] = before
        path.write_text(text, encoding="utf-8")
    assert refused > 50


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_column_that_is_missing_or_wrong(name: str, tmp_path: Path) -> None:
    LAYOUTS[name]["hub"](tmp_path)
    shutil.rmtree(tmp_path / "other")
    for path in tmp_path.rglob("train-*"):
        path.unlink()
    [path] = [one for one in data_files(tmp_path) if "testdev_balanced_images" not in one.parts]
    table = pyarrow.parquet.read_table(path)
    for column in make_task(name).columns:
        pyarrow.parquet.write_table(table.drop_columns([column]), path)
        assert "expected" in refusal(name, "hub", tmp_path)
        place = table.column_names.index(column)
        for wrong in (pyarrow.nulls(len(table), pyarrow.string()), pyarrow.array([[2.5]] * len(table))):
            pyarrow.parquet.write_table(table.set_column(place, column, wrong), path)
            if (name, column) not in MAY_BE_EMPTY or wrong.null_count == 0:
                refusal(name, "hub", tmp_path)
    pyarrow.parquet.write_table(table, path)
    read(name, "hub", tmp_path)


def test_a_part_of_pope(tmp_path: Path) -> None:
    LAYOUTS["pope"]["own"](tmp_path)
    (tmp_path / "coco_pope_popular.json").unlink()
    assert "has no coco_pope_popular.json" in refusal("pope", "own", tmp_path)


def test_a_part_of_mme(tmp_path: Path) -> None:
    LAYOUTS["mme"]["own"](tmp_path)
    folder = tmp_path / "MME_Benchmark_release_version"
    (folder / "color" / "0001.txt").write_text("one line\tYes\n")
    assert "not two lines" in refusal("mme", "own", tmp_path)
    (folder / "color" / "0001.txt").write_text("one line\tYes\nanother\tperhaps\n")
    assert "expected one of MME's" in refusal("mme", "own", tmp_path)
    shutil.rmtree(folder / "color")
    assert "has no folder color" in refusal("mme", "own", tmp_path)


def test_mmbench_tables(tmp_path: Path) -> None:
    LAYOUTS["mmbench"]["own"](tmp_path)
    path = tmp_path / "mmbench_dev_20230712.tsv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\tanswer\t", "\tanswers\t", 1))
    assert "has no column answer" in refusal("mmbench", "own", tmp_path)
    path.write_text(text.replace("1000007\t", "1000007\tone more\t", 1))
    assert "fields, expected" in refusal("mmbench", "own", tmp_path)
    path.write_text(text.replace("1000007\t", "seven\t", 1))
    assert "expected a whole number" in refusal("mmbench", "own", tmp_path)
    path.write_text(text.replace("1000007\t", "17\t", 1).replace("1000009\t", "19\t", 1))
    assert "no turned questions" in refusal("mmbench", "own", tmp_path)
    path.write_text(text.replace("iVBOR", "iVBO*", 1))
    assert "not base64" in refusal("mmbench", "own", tmp_path)
    path.write_text(text)
    shutil.copyfile(path, tmp_path / "mmbench_dev_cn_20231003.tsv")
    read("mmbench", "own", tmp_path)
    shutil.copyfile(path, tmp_path / "mmbench_dev_en_20231003.tsv")
    assert "leave the one to take" in refusal("mmbench", "own", tmp_path)


def test_mmbench_references_to_nowhere(tmp_path: Path) -> None:
    LAYOUTS["mmbench"]["by reference"](tmp_path)
    path = tmp_path / "mmbench_dev_20230712.tsv"
    path.write_text(path.read_text().replace("\t7\t", "\t8\t"))
    assert "has no picture, nor has a row '8'" in refusal("mmbench", "by reference", tmp_path)


def test_a_test_split_has_no_answers(tmp_path: Path) -> None:
    LAYOUTS["mmbench"]["hub"](tmp_path)
    for path in tmp_path.rglob("dev-*"):
        path.unlink()
    assert "is it the dev split?" in refusal("mmbench", "hub", tmp_path)


def test_a_picture_of_gqa_that_the_hubs_other_half_lacks(tmp_path: Path) -> None:
    LAYOUTS["gqa"]["hub"](tmp_path)
    hub(tmp_path, "gqa", [{"id": "n0", "image": shown(0)}], {}, config="testdev_balanced_images")
    assert "has no picture n1" in refusal("gqa", "hub", tmp_path)


def test_llavas_textvqa_needs_words_from_pictures(tmp_path: Path) -> None:
    LAYOUTS["textvqa"]["llava"](tmp_path)
    path = tmp_path / "llava_textvqa_val_v051_ocr.jsonl"
    path.write_text(path.read_text().replace("Reference OCR token", "Words"))
    assert "has no 'Reference OCR token:'" in refusal("textvqa", "llava", tmp_path)
    path.unlink()
    assert "has neither TextVQA_Rosetta_OCR_v0.2_val.json nor" in refusal("textvqa", "llava", tmp_path)
    read("textvqa", "own", tmp_path)


def test_llavas_questions_of_another_version_of_pope(tmp_path: Path) -> None:
    """They are in the way of its preset alone."""
    LAYOUTS["pope"]["llava"](tmp_path)
    path = tmp_path / "llava_pope_test.jsonl"
    path.write_text(path.read_text().replace("a car in", "a boat in", 1))
    assert "another version of POPE" in refusal("pope", "llava", tmp_path)
    read("pope", "own", tmp_path)


def test_a_question_of_pope_that_is_asked_twice(tmp_path: Path) -> None:
    LAYOUTS["pope"]["own"](tmp_path)
    path = tmp_path / "coco_pope_random.json"
    path.write_text(path.read_text() * 2)
    assert "twice" in refusal("pope", "own", tmp_path)


def test_two_files_of_one_name(tmp_path: Path) -> None:
    for inside in ("a", "b"):
        LAYOUTS["gqa"]["own"](tmp_path / inside)
    assert "name the folder of the one to take" in refusal("gqa", "own", tmp_path)
    assert find_file(tmp_path / "a", "images") == tmp_path / "a" / "images"
