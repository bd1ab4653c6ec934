"""What a picture does not hold: pictures of nothing, questions that suppose too much, and worlds without either."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest

from flashsloth.world import World, WorldError
from flashsloth.world.background import TEXTURES, paint_texture, sample_texture
from flashsloth.world.questions import absent_colors, absent_shapes, ask_unknown
from flashsloth.world.scene import Scene, Texture
from flashsloth.world.vocabulary import KINDS, SHAPES, UNKNOWN

COUNT = 120


def test_without_unknown_nothing_changes() -> None:
    for index in range(20):
        plain, other = World(seed=3).sample(index), World(seed=3, unknown=0.2).sample(index)
        assert all(question.kind != "unknown" for question in plain.questions)
        assert plain.scene.texture is None
        if other.scene.texture is None:
            assert other.scene == plain.scene
            kept = [question for question in other.questions if question.kind != "unknown"]
            assert all(question in plain.questions for question in kept)


def test_shares_are_about_what_was_asked_for() -> None:
    samples = [World(seed=4, unknown=0.3).sample(index) for index in range(COUNT)]
    nothing = [sample for sample in samples if sample.scene.texture is not None]
    assert 0.2 < len(nothing) / COUNT < 0.4
    kinds = Counter(q.kind for sample in samples if sample.scene.texture is None for q in sample.questions)
    assert 0.2 < kinds["unknown"] / kinds.total() < 0.4
    asked = [question for sample in samples for question in sample.questions]
    assert {question.answer for question in asked if question.kind == "unknown"} == {UNKNOWN}
    assert {question.kind for question in asked} == set(KINDS)


def test_a_picture_of_nothing_is_asked_only_what_can_be_answered() -> None:
    samples = [World(seed=5, unknown=1.0).sample(index) for index in range(30)]
    for sample in samples:
        assert sample.caption == "nothing that I can name"
        assert {question.kind for question in sample.questions} <= {"unknown", "presence", "count"}
        assert all(q.answer == {"unknown": UNKNOWN, "presence": "no", "count": "0"}[q.kind] for q in sample.questions)
        assert len(sample.questions) == len({question.question for question in sample.questions}) >= 6
        labels = sample.patch_labels(6)
        assert not labels.shape.any()
        assert not labels.center.any()


def test_questions_name_what_is_not_there(plain_scene: Scene, make_thing) -> None:
    plain_scene.things = [make_thing("square", "red", (255, 0, 0), (50, 50), 40)]
    assert set(absent_shapes(plain_scene)) == set(SHAPES) - {"square", "rectangle", "diamond"}
    assert {"red", "white"}.isdisjoint(absent_colors(plain_scene))
    rng = Random(1)
    asked = [draft.question.lower() for _ in range(300) if (draft := ask_unknown(rng, plain_scene)) is not None]
    assert all("red square" not in question for question in asked)
    assert any("square" in question for question in asked)  # in a colour that it has not
    assert any("circle" in question for question in asked)


@pytest.mark.parametrize("style", TEXTURES)
def test_every_texture_fills_its_size_the_same_twice(style) -> None:
    texture = Texture(style, ((200, 30, 40), (10, 120, 220), (240, 240, 90)), 7)
    first, second = (np.asarray(paint_texture(texture, (97, 130))) for _ in range(2))
    assert first.shape == (130, 97, 3)
    assert (first == second).all()
    assert (first.std(axis=(0, 1)).max() == 0) == (style == "blank")


def test_all_textures_are_drawn() -> None:
    rng = Random(2)
    assert {sample_texture(rng).style for _ in range(200)} == set(TEXTURES)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(WorldError, match="expected a share"):
        World(unknown=share)
