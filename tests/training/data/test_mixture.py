"""Training samples: LLaVA's format, the drawn world, and what is wrong with a bad file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from flashsloth.media import open_picture
from flashsloth.training.data import DataError, JsonData, WorldData, conversations, patches
from flashsloth.training.recipe_fields import DataSource


def llava(folder: Path, records: object) -> JsonData:
    file = folder / "data.json"
    file.write_text(json.dumps(records), encoding="utf-8")
    return JsonData(str(file), str(folder))


def record(**changes: object) -> dict:
    turns = [
        {"from": "human", "value": "What is this?\n<image>"},
        {"from": "gpt", "value": "A red square."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]
    return {"id": "7", "image": "red.png", "conversations": turns, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    return tmp_path


def test_the_picture_moves_to_the_front_of_the_first_turn(folder: Path) -> None:
    sample = llava(folder, [record()])[0]
    first = sample.messages[0]["content"]
    assert [part["type"] for part in first] == ["image", "text"]
    assert first[1]["text"] == "What is this?"
    assert open_picture(first[0]["image"]).getpixel((0, 0)) == (255, 0, 0)
    assert [message["role"] for message in sample.messages] == ["user", "assistant"] * 2
    assert sample.kinds == ["answer", "answer"]


def test_a_sample_without_picture(folder: Path) -> None:
    plain = record(conversations=[{"from": "human", "value": "Is <img> a tag?"}, {"from": "gpt", "value": "Yes"}])
    del plain["image"]
    assert llava(folder, [plain])[0].messages[0]["content"] == [{"type": "text", "text": "Is <img> a tag?"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "absent.png"}, "sample 0"),
        ({"conversations": []}, "has no conversations"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "expected the user's"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "robot", "value": "y"}]}, "is from 'robot'"),
    ],
)
def test_a_bad_sample_is_named(folder: Path, changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        llava(folder, [record(**changes)])[0]
    assert "\n" not in str(error.value)


def test_a_bad_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="no data at"):
        JsonData(str(folder / "absent.json"), None)
    with pytest.raises(DataError, match="expected a non-empty list"):
        llava(folder, {"a": 1})
    (folder / "broken.json").write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match="is not JSON"):
        JsonData(str(folder / "broken.json"), None)


def test_the_world_as_questions_and_as_captions() -> None:
    drawn = WorldData(DataSource(world=3, count=5, most_turns=3, independent=True))
    sample = drawn[2]
    assert len(sample.messages) == 6
    assert len(sample.kinds) == 3
    assert sample.independent
    caption = WorldData(DataSource(world=3, count=5, text="caption"))[2]
    assert caption.messages[1]["content"] == drawn.world.sample(2).caption
    assert caption.messages[0]["content"][0]["image"].tobytes() == drawn.world.sample(2).image.tobytes()


def test_sources_stand_one_after_the_other(folder: Path) -> None:
    llava(folder, [record(), record()])
    sources = [DataSource(json=str(folder / "data.json")), DataSource(world=0, count=3, text="caption")]
    joined = conversations(sources)
    assert len(joined) == 5
    assert [joined[index].kinds[0] for index in range(5)] == ["answer", "answer", "caption", "caption", "caption"]


def test_patch_labels_fit_the_grid() -> None:
    drawn = patches([DataSource(world=2, count=4)], patch_grid=12)
    item = drawn[3]
    assert {item[name].shape for name in ("shape", "color", "character", "center")} == {(144,)}
    with pytest.raises(DataError, match="needs world"):
        patches([DataSource(json="x.json")], patch_grid=12)
