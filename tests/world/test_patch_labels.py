"""Patch labels of scenes made by hand, and of drawn ones against their pixels."""

import numpy as np
import pytest

from flashsloth.world import CHARACTER_CLASSES, COLOR_CLASSES, SHAPE_CLASSES, World
from flashsloth.world.fonts import faces
from flashsloth.world.patch_labels import patch_labels
from flashsloth.world.text import write_at

GRID = 10  # a 200 x 100 scene pads to 200 x 200: patches of 20 px, five rows of picture from row 2.5 on


def grid_of(labels):
    return labels.reshape(GRID, GRID)


def test_classes_begin_with_none_and_are_distinct():
    for classes in (SHAPE_CLASSES, COLOR_CLASSES, CHARACTER_CLASSES):
        assert classes[0] == "none"
        assert len(set(classes)) == len(classes)
    assert len(CHARACTER_CLASSES) == 1 + 26 + 26 + 10


def test_a_square_fills_its_patches_and_no_others(plain_scene, make_thing):
    plain_scene.things = [make_thing("square", "red", (255, 0, 0), (40, 50), 40)]
    labels = plain_scene_labels(plain_scene)
    # x 20..60 is columns 1 and 2; y 30..70 is 80..120 of the padded square: rows 4 and 5.
    expected = np.zeros((GRID, GRID), dtype=np.int64)
    expected[4:6, 1:3] = 1
    assert (grid_of(labels.shape) == expected * SHAPE_CLASSES.index("square")).all()
    assert (grid_of(labels.color) == expected * COLOR_CLASSES.index("red")).all()
    assert grid_of(labels.center)[5, 2] == 1
    assert labels.center.sum() == 1
    assert not labels.character.any()
    assert labels.shape.dtype == labels.character.dtype == np.int64


def plain_scene_labels(scene):
    return patch_labels(scene, GRID)


def test_a_sliver_is_background(plain_scene, make_thing):
    # 2 of a patch's 20 px wide: a tenth, below the fifth that names a patch.
    plain_scene.things = [make_thing("rectangle", "blue", (0, 0, 255), (31, 50), 22, 20)]
    row = grid_of(plain_scene_labels(plain_scene).shape)[4]
    assert row[1] == SHAPE_CLASSES.index("rectangle")
    assert row[2] == 0


def test_the_larger_share_wins(plain_scene, make_thing):
    plain_scene.things = [
        make_thing("square", "red", (255, 0, 0), (28, 40), 12),
        make_thing("square", "blue", (0, 0, 255), (36, 40), 4),
    ]
    assert grid_of(plain_scene_labels(plain_scene).color)[4, 1] == COLOR_CLASSES.index("red")


def test_an_outlined_thing_covers_its_inside(plain_scene, make_thing):
    plain_scene.things = [make_thing("circle", "green", (0, 128, 0), (100, 50), 80, stroke=6.0)]
    assert grid_of(plain_scene_labels(plain_scene).shape)[4:6, 4:6].all()


def test_characters_are_where_they_are_drawn(plain_scene):
    writing = write_at("Hi7", "word", "black", (0, 0, 0), faces()[0], 60, (100, 50))
    plain_scene.writings = [writing]
    labels = plain_scene_labels(plain_scene)
    characters = grid_of(labels.character)
    columns = [np.unique(np.argwhere(characters == CHARACTER_CLASSES.index(char))[:, 1]) for char in "Hi7"]
    assert all(len(found) for found in columns)
    assert columns[0].max() <= columns[1].min() <= columns[1].max() <= columns[2].min()
    shapes = grid_of(labels.shape)
    assert set(np.unique(shapes)) == {0, SHAPE_CLASSES.index("text")}
    assert set(np.unique(labels.color)) == {0, COLOR_CLASSES.index("black")}


def test_a_letter_inside_leaves_the_thing_its_shape(plain_scene, make_thing):
    thing = make_thing("square", "red", (255, 0, 0), (100, 50), 90)
    thing.writing = write_at("A", "letter", "white", (255, 255, 255), faces()[0], 60, (100, 50))
    plain_scene.things = [thing]
    labels = plain_scene_labels(plain_scene)
    assert CHARACTER_CLASSES.index("A") in labels.character
    assert set(np.unique(labels.shape)) == {0, SHAPE_CLASSES.index("square")}


@pytest.mark.parametrize("grid", [7, 10, 27])
def test_drawn_samples_have_labels_of_the_right_form(grid):
    world = World(seed=2)
    for index in range(60):
        sample = world.sample(index)
        labels = sample.patch_labels(grid)
        limits = (len(SHAPE_CLASSES), len(COLOR_CLASSES), len(CHARACTER_CLASSES), 2)
        for values, limit in zip((labels.shape, labels.color, labels.character, labels.center), limits, strict=True):
            assert values.shape == (grid * grid,)
            assert values.dtype == np.int64
            assert 0 <= values.min() <= values.max() < limit
        assert ((labels.shape == 0) == (labels.color == 0)).all()
        assert labels.center.any()
        if sample.scene.chart:
            assert SHAPE_CLASSES.index("bar") in labels.shape


def test_labels_agree_with_pixels():
    """Where a patch is labelled with a thing, its pixels differ from the background; elsewhere they do not."""
    world, grid = World(seed=8, level=1), 10
    for index in range(60):
        scene = world.sample(index).scene
        if scene.background.style != "plain" or any(thing.stroke for thing in scene.things) or scene.writings:
            continue
        image = world.sample(index).image.resize((scene.width, scene.height))
        side = scene.long_side
        square = np.empty((side, side, 3), dtype=np.int64)
        square[:] = scene.background.rgb
        top, left = (side - scene.height) // 2, (side - scene.width) // 2
        square[top : top + scene.height, left : left + scene.width] = np.asarray(image)
        different = np.abs(square - scene.background.rgb).sum(axis=2) > 60
        shapes = world.sample(index).patch_labels(grid).shape.reshape(grid, grid)
        for row in range(grid):
            for column in range(grid):
                cut = [round(k * side / grid) for k in (row, row + 1, column, column + 1)]
                share = different[cut[0] : cut[1], cut[2] : cut[3]].mean()
                if abs(share - 0.2) > 0.14:
                    assert (shapes[row, column] > 0) == (share > 0.2), (index, row, column, share)
