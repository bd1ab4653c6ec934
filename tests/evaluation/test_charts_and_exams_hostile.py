"""Files of the seven benchmarks of `drawn_charts_and_exams.py` that are not what they say, in one line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from drawn_benchmarks import put, shown
from drawn_charts_and_exams import LAYOUTS

from flashsloth.evaluation.settings import settings_of
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import make_task


def change(folder: Path, name: str, edit: Callable[[Any], Any]) -> None:
    """A JSON file of a folder, otherwise."""
    [path] = folder.rglob(name)
    put(path, edit(json.loads(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("name", "file", "edit", "said"),
    [
        ("mmvet", "mm-vet.json", lambda rows: [*rows.values()], "holds list, expected an object of questions"),
        ("mmvet", "mm-vet.json", lambda rows: {"v1_0": None}, "v1_0 is None, expected an object"),
        ("mmvet", "mm-vet.json", lambda rows: {"v1_0": {"question": 3}}, "question is 3, expected a text"),
        ("mmvet", "mm-vet.json", lambda rows: {"a": {**rows["v1_0"], "capability": "ocr"}}, "capability is 'ocr'"),
        ("mmvet", "mm-vet.json", lambda rows: {"a": {**rows["v1_0"], "imagename": "z"}}, "has no picture 'z'"),
        ("mmvet", "mm-vet.json", lambda rows: "{", "line 1, is not JSON"),
        ("mathvista", "annot_testmini.json", lambda rows: 5, "holds int, expected an object"),
        ("mathvista", "annot_testmini.json", lambda rows: {"1": {**rows["1"], "answer": None}}, "answer is None"),
        (
            "mathvista",
            "annot_testmini.json",
            lambda rows: {"1": {**rows["1"], "answer_type": "x"}},
            "MathVista's kinds",
        ),
        ("mathvista", "annot_testmini.json", lambda rows: {"2": {**rows["2"], "precision": "x"}}, "MathVista's kinds"),
        ("mathvista", "annot_testmini.json", lambda rows: {"5": {**rows["5"], "choices": [1]}}, "MathVista's kinds"),
        ("mathvista", "annot_testmini.json", lambda rows: {"5": {**rows["5"], "choices": None}}, "MathVista's kinds"),
        ("mathvista", "annot_testmini.json", lambda rows: {"5": {**rows["5"], "choices": 7}}, "choices is 7, expected"),
        ("chartqa", "test_human.json", lambda rows: {}, "holds dict, expected a list of objects"),
        ("chartqa", "test_human.json", lambda rows: [{"query": "a"}], "row 1 has no imgname, label"),
        ("chartqa", "test_human.json", lambda rows: [{**rows[0], "label": 14}], "label is 14, expected a text"),
        ("docvqa", "val_v1.0_withQT.json", lambda rows: {"data": [{**rows["data"][0], "questionId": 1.5}]}, "is 1.5"),
        ("docvqa", "val_v1.0_withQT.json", lambda rows: [], "holds NoneType, expected a list of objects"),
        (
            "docvqa",
            "val_v1.0_withQT.json",
            lambda rows: {"data": [{**rows["data"][0], "answers": []}]},
            "expected texts",
        ),
        (
            "docvqa",
            "val_v1.0_withQT.json",
            lambda rows: {"data": [{**rows["data"][0], "answers": "a"}]},
            "answers is 'a'",
        ),
    ],
)
def test_hostile_files(name: str, file: str, edit: Callable[[Any], Any], said: str, tmp_path: Path) -> None:
    LAYOUTS[name]["own"](tmp_path)
    change(tmp_path, file, edit)
    with pytest.raises(EvaluationError) as found:
        list(make_task(name).read(tmp_path))
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_half_of_chartqa_is_refused(tmp_path: Path) -> None:
    LAYOUTS["chartqa"]["own"](tmp_path)
    next(tmp_path.rglob("test_augmented.json")).unlink()
    with pytest.raises(EvaluationError, match=r"has no test_augmented.json, expected it beside the other"):
        list(make_task("chartqa").read(tmp_path))


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        ("mmmu", {"options": "__import__('os')"}, "expected a list of texts"),
        ("mmmu", {"options": "[1, 2]"}, "expected a list of texts"),
        ("mmmu", {"options": None}, "expected a list of texts"),
        ("mmmu", {"options": "(" * 10_000}, "expected a list of texts"),
        ("mmmu", {"question": None}, "question is None, expected a text"),
        ("mmmu", {"question": "Is it <image 5>?"}, "shows image_5, which its row does not have"),
        ("mmmu", {"id": "validation_1"}, "expected one such as validation_Art_1"),
        ("mmmu", {"id": "test_Art_1"}, "has no data of MMMU: expected Parquet files with the columns id, question"),
        ("ai2d", {"answer": "4"}, "has answer '4', expected 0 to 3"),
        ("ai2d", {"answer": "C"}, "has answer 'C', expected 0 to 3"),
        ("ai2d", {"options": None}, "options is None, expected a list"),
        ("chartqa", {"type": "some"}, "type is 'some', expected human_test or augmented_test"),
        ("realworldqa", {"answer": None}, "answer is None, expected a text"),
        ("docvqa", {"data_split": "val", "answers": None}, "answers is None, expected a list"),
        ("mathvista", {"pid": None}, "pid is None, expected a text"),
    ],
)
def test_hostile_parquet(name: str, edit: dict[str, Any], said: str, tmp_path: Path) -> None:
    LAYOUTS[name]["hub"](tmp_path / "good")
    found = next(path for path in (tmp_path / "good").rglob(f"{settings_of(name).split}-*.parquet"))
    row = {**pyarrow.parquet.read_table(found).to_pylist()[0], **edit}
    if name == "mmmu":
        row["image_2"] = shown(0)
    (tmp_path / "bad").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "bad" / "some.parquet")
    with pytest.raises(EvaluationError) as error:
        list(make_task(name).read(tmp_path / "bad"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_data(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(EvaluationError) as found:
        list(make_task(name).read(tmp_path))
    assert "Parquet files with the columns" in str(found.value)
    assert make_task(name).files in str(found.value)
