"""COCO's and VQAv2's files, whose samples stand in several lists: joined by number, read by place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from layout_files import QUESTION, coco, pictures_into, vqa
from llava_files import pictures_in, texts_of

from flashsloth.training.data import BadSampleError, DataError, json_spans
from flashsloth.training.data.json_data import open_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures_into(tmp_path)
    return tmp_path


def changed(file: Path, **changes: Any) -> Path:
    held = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**held, **changes}, indent=1), encoding="utf-8")
    return file


@pytest.mark.parametrize("block", [1, 64, 1 << 20])
def test_joined_samples_are_found_whatever_the_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    file = changed(coco(folder), note='a "quote", a [ and a {', more={"a": [1, {"b": []}]}, none=[])
    monkeypatch.setattr(json_spans, "BLOCK_BYTES", block)
    data = open_json(str(file))
    assert [data.record(index) for index in range(2)] == [
        {"id": 0, "image": "0.png", "caption": "dog"},
        {"id": 1, "image": "1.png", "caption": "cat"},
    ]


def test_entries_that_miss_their_other_half_are_bad(folder: Path) -> None:
    annotations = [{"id": 1, "image_id": 7, "caption": "x"}, {"id": 2, "image_id": 900, "caption": None}, 3, "x"]
    data = open_json(str(changed(coco(folder), annotations=[*annotations[1:], annotations[0]])))
    assert len(data) == 4
    for index, message in enumerate(("has no conversations", "is int", "is str", "an image_id that no image has")):
        with pytest.raises(BadSampleError, match=message):
            data[index]


def test_annotations_without_captions_are_named(folder: Path) -> None:
    boxes = [{"id": 1, "image_id": 900, "bbox": [0, 0, 1, 1]}]
    with pytest.raises(DataError, match=r"annotations with \['bbox', 'id', 'image_id'\], expected a caption"):
        open_json(str(changed(coco(folder), annotations=boxes)))


def test_either_file_of_vqa_finds_the_other(folder: Path) -> None:
    questions = vqa(folder)
    by_annotations = open_json(str(folder / "v2_mscoco_train2014_annotations.json"))
    for data in (open_json(str(questions)), by_annotations):
        assert [texts_of(data[index]) for index in range(2)] == [[QUESTION, "dog"], [QUESTION, "cat"]]
        assert pictures_in(data[1]) == [folder / "COCO_train2014_000000000001.png"]


def test_pictures_of_vqa_may_lie_in_the_folder_of_their_split(folder: Path) -> None:
    questions = vqa(folder)
    (folder / "coco" / "train2014").mkdir(parents=True)
    (folder / "COCO_train2014_000000000001.png").rename(
        folder / "coco" / "train2014" / "COCO_train2014_000000000001.jpg"
    )
    data = open_json(str(questions), str(folder / "coco"))
    assert pictures_in(data[1]) == [folder / "coco" / "train2014" / "COCO_train2014_000000000001.jpg"]


def test_questions_without_their_annotations_are_named(folder: Path) -> None:
    questions = vqa(folder)
    annotations = folder / "v2_mscoco_train2014_annotations.json"
    held = json.loads(annotations.read_text(encoding="utf-8"))
    changed(annotations, annotations=held["annotations"][:1])
    with pytest.raises(BadSampleError, match="has no annotation that answers it"):
        open_json(str(questions))[0]
    changed(annotations, annotations=[{**held["annotations"][0], "question_id": 99}])
    with pytest.raises(DataError, match="answers none of the questions"):
        open_json(str(questions))
    annotations.unlink()
    with pytest.raises(DataError, match=r"expected v2_mscoco_train2014_annotations\.json in the same folder"):
        open_json(str(questions))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "x": {"a": 1}', "is not JSON"),
        ('{"data": [{"a": 1}] "b": 2}', "is not JSON: expected , or }"),
        ('{"data": [{"a": 1}], 3: 2}', "is not JSON"),
        ('{"a": 1, "b": "c"}', "holds an object, expected a non-empty list of samples"),
    ],
)
def test_an_object_of_something_else_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        open_json(str(tmp_path / "data.json"))
    assert message in str(error.value)


@pytest.mark.parametrize("named_by", ["file", "url"])
def test_pictures_of_coco_may_lie_in_the_folder_of_their_split(folder: Path, named_by: str) -> None:
    """As COCO unpacks: the file names its pictures without the folder that they lie in."""
    name = "captions_val2017.json" if named_by == "file" else "karpathy.json"
    file = coco(folder).rename(folder / name)
    content = json.loads(file.read_text(encoding="utf-8"))
    (folder / "unpacked" / "val2017").mkdir(parents=True)
    for image in content["images"]:
        (folder / image["file_name"]).rename(folder / "unpacked" / "val2017" / image["file_name"])
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image['file_name']}"
    file.write_text(json.dumps(content), encoding="utf-8")
    data = open_json(str(file), str(folder / "unpacked"))
    assert {path.parent for index in range(len(data)) for path in pictures_in(data[index])} == {
        folder / "unpacked" / "val2017"
    }
