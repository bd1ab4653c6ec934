"""Every renderer draws every shape where its outline is, in its colour."""

import numpy as np
import pytest
from PIL import Image

from flashsloth.world.draw import RENDERERS, draw_thing
from flashsloth.world.vocabulary import SHAPES

RED, WHITE = (255, 0, 0), (255, 255, 255)


def drawn(thing, renderer, **details):
    canvas = Image.new("RGB", (120, 120), WHITE)
    draw_thing(canvas, thing, renderer, **details)
    return np.asarray(canvas).astype(int)


def covered(pixels):
    """The area that is red, in pixels, counting soft ones by their share."""
    return ((255 - pixels[:, :, 1]) / 255).sum()


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_area_and_place(shape, renderer, make_thing):
    width, height = {"rectangle": (80, 40), "oval": (80, 45), "diamond": (50, 75)}.get(shape, (70, 70))
    thing = make_thing(shape, "red", RED, (60, 60), width, height, rotation=7.0)
    pixels = drawn(thing, renderer)
    assert covered(pixels) == pytest.approx(thing.area, rel=0.06)
    assert tuple(pixels[60, 60]) == RED
    rows, columns = np.nonzero(pixels[:, :, 1] < 128)
    assert abs(rows.min() - thing.box.top) <= 2
    assert abs(rows.max() - thing.box.bottom) <= 2
    assert abs(columns.min() - thing.box.left) <= 2
    assert abs(columns.max() - thing.box.right) <= 2


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in ("star", "cross")])
def test_a_stroke_leaves_the_inside_open(shape, renderer, make_thing):
    thing = make_thing(shape, "red", RED, (60, 60), 80, stroke=6.0)
    pixels = drawn(thing, renderer)
    assert tuple(pixels[60, 60]) == WHITE
    assert 0.1 * thing.area < covered(pixels) < 0.7 * thing.area


def test_an_edge_is_dark_and_the_face_keeps_its_color(make_thing):
    thing = make_thing("square", "red", RED, (60, 60), 60, edge=3.0)
    pixels = drawn(thing, "jagged")
    assert tuple(pixels[60, 60]) == RED
    assert tuple(pixels[31, 60]) == (0, 0, 0)


def test_jagged_has_two_colors_and_smooth_has_more(make_thing):
    thing = make_thing("circle", "red", RED, (60, 60), 70)
    colors = {renderer: len(np.unique(drawn(thing, renderer)[:, :, 1])) for renderer in RENDERERS}
    assert colors["jagged"] == 2
    assert min(colors["smooth"], colors["smoother"], colors["distance"]) > 6


def test_shade_darkens_downwards(make_thing):
    thing = make_thing("square", "red", RED, (60, 60), 80)
    pixels = drawn(thing, "distance", shade=0.3)
    assert pixels[30, 60, 0] > pixels[60, 60, 0] > pixels[90, 60, 0] > 150
