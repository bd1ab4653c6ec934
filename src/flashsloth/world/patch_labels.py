"""What each patch of a picture shows: targets for training a vision encoder patch by patch.

In: a `Scene` and a grid. Out: `PatchLabels`, four int64 arrays [grid * grid], row by row, of the picture padded to a
centred square. A thing covers what lies inside its outline, also where only its line is drawn.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from flashsloth.world.scene import Box, Point, Scene, Writing
from flashsloth.world.text import character_boxes, readable_cap
from flashsloth.world.vocabulary import COLORS, SHAPES

NONE = "none"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHAPE_CLASSES = (NONE, *SHAPES, "bar", "text")
COLOR_CLASSES = (NONE, *COLORS)
CHARACTER_CLASSES = (NONE, *LETTERS, *LETTERS.upper(), *"0123456789")
CELL = 16  # the map of owners has CELL x CELL points in each patch
LEAST_CAP = 5.0  # px of cap height after the shrink to the model's square: smaller writing is no target
LEAST_SHARE = 0.2  # of a patch, for what covers most of it to name it

_SHAPE_OF = {name: index for index, name in enumerate(SHAPE_CLASSES)}
_COLOR_OF = {name: index for index, name in enumerate(COLOR_CLASSES)}
_CHARACTER_OF = {name: index for index, name in enumerate(CHARACTER_CLASSES)}


@dataclass(frozen=True)
class PatchLabels:
    """Class numbers, int64 [grid * grid] each; `center` is 1 where a thing's or a character's centre lies."""

    shape: np.ndarray
    color: np.ndarray
    character: np.ndarray
    center: np.ndarray


class _OwnerMap:
    """A coarse picture in which each pixel holds the number of what covers it; 0 is nothing."""

    def __init__(self, scene: Scene, grid: int) -> None:
        self.grid = grid
        self.scale = grid * CELL / scene.long_side
        self.shift = (scene.long_side - scene.width) / 2, (scene.long_side - scene.height) / 2
        self.map = Image.new("L", (grid * CELL, grid * CELL))
        self.pen = ImageDraw.Draw(self.map)
        self.count = 0

    def at(self, point: Point) -> Point:
        """A point of the picture as a point of the map."""
        return (point[0] + self.shift[0]) * self.scale, (point[1] + self.shift[1]) * self.scale

    def fill(self, points: list[Point]) -> None:
        self.count += 1
        # A polygon takes the pixels that its border runs through; half a pixel less keeps its area true.
        self.pen.polygon([(x - 0.5, y - 0.5) for x, y in map(self.at, points)], fill=self.count)

    def fill_box(self, box: Box) -> None:
        self.fill(box.corners)

    def owners(self) -> np.ndarray:
        """int64 [grid * grid]: the number of what covers most of each patch, 0 where that is too little."""
        cells = np.asarray(self.map).reshape(self.grid, CELL, self.grid, CELL).transpose(0, 2, 1, 3)
        patches = self.grid * self.grid
        flat = cells.reshape(patches, CELL * CELL).astype(np.int64)
        flat += np.arange(patches)[:, None] * (self.count + 1)
        shares = np.bincount(flat.ravel(), minlength=patches * (self.count + 1)).reshape(patches, self.count + 1)
        shares[:, 0] = LEAST_SHARE * CELL * CELL
        return shares.argmax(axis=1)


def patch_labels(scene: Scene, grid: int) -> PatchLabels:
    """The labels of `scene` cut into `grid` x `grid` patches."""
    shapes, colors = _OwnerMap(scene, grid), [(0, 0)]
    characters, names = _OwnerMap(scene, grid), [0]
    center = np.zeros(grid * grid, dtype=np.int64)

    def mark(point: Point) -> None:
        x, y = (min(grid - 1, max(0, int(value / CELL))) for value in shapes.at(point))
        center[y * grid + x] = 1

    def write(writing: Writing, owns: bool) -> None:
        for char, box in character_boxes(writing):
            if owns:
                shapes.fill_box(box)
                colors.append((_SHAPE_OF["text"], _COLOR_OF[writing.color]))
            characters.fill_box(box)
            names.append(_CHARACTER_OF[char])
            mark(box.center)

    for thing in scene.things:
        shapes.fill(thing.outline)
        colors.append((_SHAPE_OF[thing.shape], _COLOR_OF[thing.color]))
        mark(thing.center)
        if thing.writing is not None:
            write(thing.writing, owns=False)
    if scene.chart is not None:
        for bar in scene.chart.bars:
            shapes.fill_box(bar.box)
            colors.append((_SHAPE_OF["bar"], _COLOR_OF[bar.color]))
            mark(bar.box.center)
    for writing in all_writings(scene):
        write(writing, owns=True)
    table = np.asarray(colors, dtype=np.int64)[shapes.owners()]
    character = np.asarray(names, dtype=np.int64)[characters.owners()]
    return PatchLabels(table[:, 0], table[:, 1], character, center)


def all_writings(scene: Scene) -> list[Writing]:
    """Every run of text on the background that can be read: free writing and a chart's."""
    if scene.chart is None:
        return scene.writings
    found = [*scene.chart.writings, *(number for _, number in scene.chart.ticks if number is not None)]
    least = readable_cap((scene.width, scene.height), LEAST_CAP)
    return [writing for writing in found if writing.size * writing.face.cap_height >= least]
