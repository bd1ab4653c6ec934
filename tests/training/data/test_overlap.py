"""Held-out samples that are learned from are counted and named; what merely resembles one is not."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flashsloth.training.data import conversations
from flashsloth.training.data.overlap import overlap_of
from flashsloth.training.recipe import load_recipe
from flashsloth.training.recipe_fields import DataSource
from flashsloth.training.run import train
from tests.training import tiny_runs


def record(name: str, question: str, answer: str = "Red.") -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": f"{name} {question}", "image": name, "conversations": turns}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, color in (("a.png", "red"), ("b.png", "red"), ("c.png", "blue")):
        Image.new("RGB", (8, 8), color).save(tmp_path / name)
    return tmp_path


def source(folder: Path, name: str, records: list[dict[str, Any]]) -> Any:
    (folder / name).write_text(json.dumps(records), encoding="utf-8")
    return conversations([DataSource(json=str(folder / name), images=str(folder))])


def test_the_same_conversation_about_the_same_picture_is_found(folder: Path) -> None:
    learned = source(folder, "learned.json", [record("c.png", "Which?"), record("b.png", "What color?")])
    held_out = source(folder, "held_out.json", [record("a.png", "What color?"), record("a.png", "Which?")])
    found = overlap_of(learned, held_out)
    assert found.samples == 1  # b.png has the bytes of a.png; "Which?" was asked about another picture
    assert "held_out.json, sample 0" in found.example
    assert "learned.json, sample 1" in found.example
    assert found.warning().startswith("1 held-out samples are also learned from, such as")


def test_another_answer_or_picture_is_another_sample(folder: Path) -> None:
    learned = source(folder, "learned.json", [record("a.png", "What color?", "Blue."), record("c.png", "What color?")])
    held_out = source(folder, "held_out.json", [record("a.png", "What color?")])
    assert overlap_of(learned, held_out).samples == 0


def test_of_large_data_some_samples_are_looked_at(folder: Path) -> None:
    everything = [record("a.png", f"Number {number}?") for number in range(100)]
    learned, held_out = source(folder, "learned.json", everything), source(folder, "held_out.json", everything[:3])
    found = overlap_of(learned, held_out, most=10)
    assert found.samples == 1
    assert not found.is_whole
    assert found.warning().startswith("at least 1 held-out")


def test_a_world_is_known_by_what_it_is_drawn_from() -> None:
    def world(**changes: Any) -> Any:
        return conversations([DataSource(world=1, **{"count": 5, "seed": 1, **changes})])

    assert overlap_of(world(), world(count=3)).samples == 3
    assert overlap_of(world(), world(seed=2)).samples == 0
    assert overlap_of(world(), world(split="test")).samples == 0


def test_a_run_says_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=1).replace(
        "data:", "eval_data: [{world: 1, count: 3, text: caption}], data:"
    )
    with caplog.at_level(logging.WARNING):
        train(load_recipe(tiny_runs.write_recipe(tmp_path, stage)))
    assert "3 held-out samples are also learned from, such as sample 0 of world 1" in caplog.text
