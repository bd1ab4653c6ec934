"""Scenes made by hand, for tests that must know exactly what is in a picture."""

import pytest

from flashsloth.world.background import WHITE
from flashsloth.world.scene import Background, Scene, Thing, area, bounds, outline


@pytest.fixture
def plain_scene():
    """An empty white scene of 200 x 100."""
    return Scene(200, 100, Background("plain", WHITE, WHITE, "white"))


@pytest.fixture
def make_thing():
    """Makes a thing: `make_thing("circle", "red", (255, 0, 0), (50, 50), 40)`."""

    def make(shape, color, rgb, center, width, height=None, **details):
        height = width if height is None else height
        points = outline(shape, center, width, height, details.get("rotation", 0.0))
        details.setdefault("rotation", 0.0)
        return Thing(
            shape, color, rgb, center, width, height, outline=points, box=bounds(points), area=area(points), **details
        )

    return make
