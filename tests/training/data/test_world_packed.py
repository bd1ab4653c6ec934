"""A pack as a source: the very samples that drawing on the spot gives, pixel for pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
from flashsloth.training.data import DataError, conversations, patches
from flashsloth.training.recipe_fields import DataSource
from flashsloth.world.pack import PackPlan, draw_pack

SIDE, GRID, COUNT = 24, 4, 4


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    plan = PackPlan(seed=2, split="train", level=3, unknown=0.2, start=0, count=COUNT, side=SIDE, grid=GRID)
    return str(draw_pack(plan, tmp_path_factory.mktemp("packs") / "pack"))


@pytest.mark.parametrize("source", [{}, {"text": "caption"}, {"independent": True, "most_turns": 2}])
def test_a_pack_gives_what_the_world_gives(pack: str, source: dict) -> None:
    processor = FlashSlothImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_aspect_ratio="pad")
    packed = conversations([DataSource(packed=pack, **source)], GRID)
    drawn = conversations([DataSource(world=3, count=COUNT, seed=2, unknown=0.2, **source)], GRID)
    assert len(packed) == len(drawn) == COUNT
    for index in range(COUNT):
        one, other = packed[index], drawn[index]
        pictures = [sample.messages[0]["content"].pop(0)["image"] for sample in (one, other)]
        first, second = (processor(picture, return_tensors="np")["pixel_values"] for picture in pictures)
        assert (first == second).all()
        assert one.messages == other.messages
        assert (one.kinds, one.independent) == (other.kinds, other.independent)
        assert one.patches is not None
        assert all((one.patches[name] == other.patches[name]).all() for name in other.patches)


def test_patches_of_a_pack(pack: str) -> None:
    packed = patches([DataSource(packed=pack, count=2)], GRID)
    drawn = patches([DataSource(world=3, count=2, seed=2, unknown=0.2)], GRID)
    assert len(packed) == 2
    for index in range(2):
        assert packed[index].keys() == drawn[index].keys()
        assert all(np.array_equal(packed[index][name], drawn[index][name]) for name in ("shape", "color", "center"))


def test_mistakes_are_named(pack: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        conversations([DataSource(packed=str(tmp_path / "none"))])
    with pytest.raises(DataError, match="fewer than count: 9"):
        conversations([DataSource(packed=pack, count=9)])
    with pytest.raises(DataError, match="draw it with --grid 6"):
        patches([DataSource(packed=pack)], 6)
    with pytest.raises(ValueError, match=r"unknown: found 0\.1, but it does not go with packed"):
        DataSource(packed=pack, unknown=0.1)
    with pytest.raises(ValueError, match="found world and packed, expected exactly one of"):
        DataSource(packed=pack, world=3)
