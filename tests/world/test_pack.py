"""Packs: the same samples as drawn on the spot, whole or not at all, and never damaged unnoticed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashsloth.media.views import resize_on_square
from flashsloth.world import World, pack
from flashsloth.world.pack import Pack, PackError, PackPlan, draw_pack

SIDE, GRID = 24, 4
PLAN = PackPlan(seed=2, split="train", level=3, unknown=0.2, start=5, count=7, side=SIDE, grid=GRID, shard_pictures=3)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    return draw_pack(PLAN, tmp_path / "pack")


def test_a_pack_holds_what_the_world_draws(drawn: Path) -> None:
    held, world = Pack(drawn), World(2, "train", 3, 0.2)
    assert held.plan == PLAN
    assert len(held) == 7
    for index in (6, 0, 3, 2):
        sample, packed = world.sample(PLAN.start + index), held[index]
        assert packed.caption == sample.caption
        assert packed.questions == sample.questions
        square = resize_on_square(sample.image, SIDE, Image.Resampling.BICUBIC)
        assert (packed.picture == np.asarray(square)).all()
        labels = sample.patch_labels(GRID)
        assert (packed.patches.shape == labels.shape).all()
        assert (packed.patches.character == labels.character).all()
        assert (packed.patches.center == labels.center).all()
    with pytest.raises(IndexError):
        held[7]


def test_a_pack_can_be_handed_to_another_process(drawn: Path) -> None:
    held = Pack(drawn)
    assert (pickle.loads(pickle.dumps(held))[4].picture == held[4].picture).all()


def test_several_processes_draw_the_same(drawn: Path, tmp_path: Path) -> None:
    plan = PackPlan(**{**PLAN.__dict__, "count": 4})
    assert (Pack(draw_pack(plan, tmp_path / "other", workers=2))[3].picture == Pack(drawn)[3].picture).all()


def test_an_interrupted_drawing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_shard, drawn, folder = pack._draw_shard, [], tmp_path / "pack"

    def drawing(stop_at: int | None) -> None:
        def draw(plan: PackPlan, target: Path, shard: int) -> int:
            if shard == stop_at:
                raise KeyboardInterrupt
            drawn.append(shard)
            return draw_shard(plan, target, shard)

        monkeypatch.setattr(pack, "_draw_shard", draw)

    drawing(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        draw_pack(PLAN, folder)
    with pytest.raises(PackError, match="is not finished"):
        Pack(folder)
    with pytest.raises(PackError, match="the beginning of another pack"):
        draw_pack(PackPlan(**{**PLAN.__dict__, "seed": 9}), folder)
    drawing(stop_at=None)
    progress: list[int] = []
    draw_pack(PLAN, folder, progress=progress.append)
    assert drawn == [0, 1, 2]
    assert progress == [3, 3, 1]
    assert len(Pack(folder)) == 7


def test_damage_is_noticed(drawn: Path) -> None:
    file = drawn / "00001.safetensors"
    content = bytearray(file.read_bytes())
    at = content.find(Pack(drawn)[4].picture.tobytes())
    content[at + 100] ^= 1
    file.write_bytes(content)
    with pytest.raises(PackError, match=r"00001\.safetensors is damaged at its picture 1"):
        Pack(drawn)[4]
    assert Pack(drawn)[3].caption
    file.write_bytes(content[:50])
    with pytest.raises(PackError, match="cannot be read"):
        Pack(drawn)[3]
    file.unlink()
    with pytest.raises(PackError, match=r"lacks 00001\.safetensors"):
        Pack(drawn)


def test_mistakes_are_named(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="is a finished pack"):
        draw_pack(PLAN, drawn)
    with pytest.raises(PackError, match="holds other files"):
        draw_pack(PLAN, tmp_path)
    with pytest.raises(PackError, match="is not there"):
        Pack(tmp_path / "nowhere")
    with pytest.raises(PackError, match="whole number of pixels"):
        draw_pack(PackPlan(**{**PLAN.__dict__, "grid": 5}), tmp_path / "new")
    with pytest.raises(PackError, match="count is 0"):
        draw_pack(PackPlan(**{**PLAN.__dict__, "count": 0}), tmp_path / "new")
