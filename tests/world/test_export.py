"""A split on disk: LLaVA's layout, whole or not at all."""

import json

import pytest
from PIL import Image

from flashsloth.world import World, export_split
from flashsloth.world.pack import ExportError


def test_conversations_hold_every_question(tmp_path):
    world = World(seed=1, split="test")
    path = export_split(world, tmp_path / "data", 5, start=10)
    records = json.loads(path.read_text(encoding="utf-8"))
    assert [record["id"] for record in records] == [f"test-3-{index:06d}" for index in range(10, 15)]
    for index, record in enumerate(records, start=10):
        sample = world.sample(index)
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * len(sample.questions)
        assert turns[0]["value"] == f"<image>\n{sample.questions[0].question}"
        assert not any("<image>" in turn["value"] for turn in turns[1:])
        assert [turn["value"] for turn in turns[1::2]] == [question.answer for question in sample.questions]
        with Image.open(path.parent / record["image"]) as image:
            assert image.tobytes() == sample.image.tobytes()


def test_captions_and_jpeg(tmp_path):
    world = World(level=0)
    path = export_split(world, tmp_path, 3, image_format="jpg", captions=True)
    records = json.loads(path.read_text(encoding="utf-8"))
    assert [record["conversations"][1]["value"] for record in records] == [world.sample(k).caption for k in range(3)]
    assert len({record["conversations"][0]["value"] for record in records}) > 1
    assert all(record["image"].endswith(".jpg") for record in records)


def test_nothing_unfinished_stays(tmp_path):
    export_split(World(), tmp_path, 4)
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == [
        *(f"{index:06d}.png" for index in range(4)), "conversations.json",
    ]  # fmt: skip


def test_wrong_exports_are_refused(tmp_path):
    with pytest.raises(ExportError, match="png, jpg"):
        export_split(World(), tmp_path, 1, image_format="gif")
    with pytest.raises(ExportError, match="at least one"):
        export_split(World(), tmp_path, 0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="not a folder"):
        export_split(World(), tmp_path / "file", 1)


def test_a_set_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "data"
    export_split(World(seed=1), target, 3)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(ExportError, match="holds a set already"):
        export_split(World(seed=2), target, 1)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    path = export_split(World(seed=2), target, 1, replace=True)
    assert sorted(file.name for file in target.rglob("*") if file.is_file()) == ["000000.png", "conversations.json"]
    assert [record["image"] for record in json.loads(path.read_text(encoding="utf-8"))] == ["images/000000.png"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_what_is_no_set_is_never_replaced(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="not empty and holds no set"):
        export_split(World(), tmp_path, 1, replace=True)
    export_split(World(), tmp_path / "data", 1)
    (tmp_path / "data" / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match=r"other things as well \(letter.txt\)"):
        export_split(World(), tmp_path / "data", 1, replace=True)
    assert (tmp_path / "data" / "letter.txt").read_text() == "dear"


def test_nothing_stays_of_an_export_that_fails(tmp_path):
    class Failing(World):
        def sample(self, index):
            if index == 2:
                raise OSError("disk full")
            return super().sample(index)

    with pytest.raises(OSError, match="disk full"):
        export_split(Failing(), tmp_path / "data", 4)
    assert list(tmp_path.iterdir()) == []
