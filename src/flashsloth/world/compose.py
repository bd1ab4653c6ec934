"""Decides what a picture shows, and where: objects, text, a chart or a mixture, by level of difficulty.

In: a random stream and a level 0..3. Out: a `Scene`, whose shapes, colours, sizes and places are chosen so that nothing
overlaps and every name is clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from flashsloth.world.background import DARK_LUMA, sample_background, sample_texture
from flashsloth.world.chart import sample_chart
from flashsloth.world.colors import RGB, distance, legible, luma, mix, sample_contrasting, sample_legible
from flashsloth.world.scene import (
    INRADIUS,
    Background,
    Box,
    Point,
    Scene,
    Thing,
    Writing,
    WritingKind,
    area,
    bounds,
    outline,
)
from flashsloth.world.text import fit_writing, font_size, readable_cap, sample_face, under_of, write_at
from flashsloth.world.vocabulary import COLORS, SHAPE_WEIGHTS, SHAPES, sample_letter, sample_number, sample_word

SMALLEST, LARGEST = 0.15, 0.6  # of the room's side: the root of its area, so that long pictures hold no specks
CROWD_SHARE = 1.15  # of the room's side: n things share this length as side / n ** 0.5, at most
TRIES = 14  # places tried for one thing, each a little smaller than the one before
SHRINK = 0.93
GAP = 0.03  # of the short side, between two things' boxes
RIM = 0.015  # of the short side, between a thing and the picture's border
CENTERED_SHARE = 0.2  # of the lone things are placed in the middle
LAYOUT_WEIGHTS = {"free": 60, "row": 12, "column": 10, "grid": 18}
LAYOUT_SHIFT = 0.03  # of a side, that things in a layout stray
UNTURNED_SHARE = 0.6  # of the things stand upright
STROKED_SHARE, EDGED_SHARE = 0.16, 0.12
FEW_KINDS_SHARE = 0.35  # of the crowds are made of few shapes and colours, so that counts above one are common
EDGE_CONTRAST = 150.0  # between a dark rim and what it surrounds
LYING_SHARE, LONGEST_EXTENT = 0.6, 1.35  # of the rectangles and ovals lie; they are longer than others by this
TURNS = {"square": 10, "rectangle": 15, "oval": 25, "heart": 15, "cross": 12, "diamond": 8, "circle": 0}
ASPECTS = {"rectangle": (1.55, 2.9), "oval": (1.6, 2.4), "diamond": (1.25, 1.7)}
LEVELS = (0, 1, 2, 3)
THEMES = ("objects", "text", "chart", "labelled", "captioned")
THEME_WEIGHTS = {0: (75, 25, 0, 0, 0), 1: (75, 25, 0, 0, 0), 2: (66, 20, 0, 7, 7), 3: (60, 15, 15, 5, 5)}
COUNT_WEIGHTS = {0: (1,), 1: (35, 65), 2: (18, 30, 28, 24), 3: (14, 21, 17, 13, 11, 9, 8, 7)}  # of things, from one
TEXT_WEIGHTS = (60, 18, 22)  # word, letter, number
LINE_WEIGHTS, LABELLED_WEIGHTS, CAPTIONED_WEIGHTS = (65, 25, 10), (30, 35, 25, 10), (40, 40, 20)  # of 1, 2, 3, 4
AXES_SHARE = 0.06
SHORTEST_SIDE, LONGEST_SIDE = 96, 288
SQUARE_SHARE = 0.45
CHART_SHORTEST = 120
LABELLED_SMALLEST = 0.27  # of the short side: a thing that a letter fits into
CAPTIONED_SMALLEST = 0.22  # of the short side of the room that the word leaves
LABELLED = ("circle", "square", "rectangle", "hexagon", "oval", "pentagon", "diamond")
LETTER_SHARE = {"oval": 0.5, "rectangle": 0.62, "diamond": 0.36}  # cap height over the thing's height; others 0.45
WORD_COLORS = tuple(name for name in COLORS if name not in ("yellow", "pink", "cyan", "white"))


@dataclass(frozen=True, slots=True)
class Palette:
    """The shapes and the colours that one picture's things are made of."""

    shapes: tuple[str, ...]
    shape_weights: tuple[int, ...]
    colors: tuple[str, ...]


def sample_palette(rng: Random, count: int, under: tuple[RGB, ...], background_name: str | None) -> Palette:
    """All shapes and colours, or for some crowds one to three of each."""
    colors = tuple(name for name in COLORS if name != background_name) if background_name else COLORS
    if count < 2 or rng.random() > FEW_KINDS_SHARE:
        return Palette(SHAPES, SHAPE_WEIGHTS, colors)
    shapes = tuple(set(rng.choices(SHAPES, SHAPE_WEIGHTS, k=rng.choice((1, 1, 2, 3)))))
    chosen = {sample_contrasting(rng, under, colors)[0] for _ in range(rng.choice((1, 2, 2, 3)))}
    shapes = tuple(name for name in SHAPES if name in shapes)
    weights = tuple(SHAPE_WEIGHTS[SHAPES.index(name)] for name in shapes)
    return Palette(shapes, weights, tuple(name for name in COLORS if name in chosen))


def place_things(rng: Random, room: Box, background: Background, count: int, smallest: float = SMALLEST) -> list[Thing]:
    """Up to `count` things inside `room`, each at least `smallest` of the room's side."""
    under = (background.rgb, background.second_rgb)
    palette = sample_palette(rng, count, under, background.name)
    spots = _spots(rng, room, count)
    things: list[Thing] = []
    for index in range(count):
        box_size = _box_size(rng, room, count, smallest)
        blocked = [thing.box for thing in things]
        thing = _placed(rng, room, under, palette, blocked, spots[index] if spots else None, box_size, smallest)
        if thing is not None:
            things.append(thing)
    return things


def _box_size(rng: Random, room: Box, count: int, smallest: float) -> float:
    largest = max(smallest * 1.1, min(LARGEST, CROWD_SHARE / (count + 0.6) ** 0.5 * 0.8))
    return min(_side(room) * rng.uniform(smallest, largest), LARGEST * min(room.width, room.height))


def _side(room: Box) -> float:
    return (room.width * room.height) ** 0.5


def _spots(rng: Random, room: Box, count: int) -> list[Point] | None:
    """Places in a row, a column, a grid or at the centre; None leaves each thing to chance."""
    if count == 1:
        return [room.center] if rng.random() < CENTERED_SHARE else None
    layout = rng.choices(tuple(LAYOUT_WEIGHTS), tuple(LAYOUT_WEIGHTS.values()))[0]
    if layout == "free":
        return None
    if layout == "row":
        cells = [((k + 0.5) / count, 0.5) for k in range(count)]
    elif layout == "column":
        cells = [(0.5, (k + 0.5) / count) for k in range(count)]
    else:
        columns = 2 if count <= 4 else 3
        rows = -(-count // columns)
        cells = [((k % columns + 0.5) / columns, (k // columns + 0.5) / rows) for k in range(rows * columns)]
        rng.shuffle(cells)
    shift = LAYOUT_SHIFT * rng.random()
    strayed = [(x + rng.uniform(-shift, shift), y + rng.uniform(-shift, shift)) for x, y in cells]
    return [(room.left + room.width * x, room.top + room.height * y) for x, y in strayed]


def _placed(
    rng: Random, room: Box, under: tuple[RGB, ...], palette: Palette, blocked: list[Box],
    spot: Point | None, box_size: float, smallest: float,
) -> Thing | None:  # fmt: skip
    short = min(room.width, room.height)
    shape = rng.choices(palette.shapes, palette.shape_weights)[0]
    long, wide = _extent(rng, shape)
    rotation = _turn(rng, shape)
    for attempt in range(TRIES):
        w, h = box_size * long, box_size * wide
        points = outline(shape, (0.0, 0.0), w, h, rotation)
        box = bounds(points)
        rim = RIM * short
        low_x, high_x = room.left + rim - box.left, room.right - rim - box.right
        low_y, high_y = room.top + rim - box.top, room.bottom - rim - box.bottom
        if low_x <= high_x and low_y <= high_y:
            if spot is not None:
                x, y = min(max(spot[0], low_x), high_x), min(max(spot[1], low_y), high_y)
            else:
                x, y = rng.uniform(low_x, high_x), rng.uniform(low_y, high_y)
            moved = Box(box.left + x, box.top + y, box.right + x, box.bottom + y)
            if not any(moved.meets(other, GAP * short) for other in blocked):
                color, rgb = sample_contrasting(rng, under, palette.colors)
                points = [(px + x, py + y) for px, py in points]
                thing = Thing(shape, color, rgb, (x, y), w, h, rotation, points, moved, area(points))
                return _finished(rng, thing, under)
        box_size = max(box_size * SHRINK, _side(room) * smallest)
        if attempt >= TRIES // 2:
            spot = None
    return None


def _extent(rng: Random, shape: str) -> tuple[float, float]:
    """Width and height of a shape whose longer side is about one."""
    if shape not in ASPECTS:
        return 1.0, 1.0
    aspect = rng.uniform(*ASPECTS[shape])
    if shape == "diamond":
        return 1 / aspect**0.5, aspect**0.5
    long, short = min(aspect**0.5, LONGEST_EXTENT), min(aspect**0.5, LONGEST_EXTENT) / aspect
    return (long, short) if rng.random() < LYING_SHARE else (short, long)


def _turn(rng: Random, shape: str) -> float:
    """Degrees, as far as the shape keeps its name."""
    if rng.random() < UNTURNED_SHARE:
        return rng.choice((0, 30)) if shape == "hexagon" else 180 * (shape == "triangle" and rng.random() < 0.15)
    limit = TURNS.get(shape, 180)
    return rng.uniform(-limit, limit)


def _finished(rng: Random, thing: Thing, under: tuple[RGB, ...]) -> Thing:
    """Makes some things a thick line, gives some a dark rim."""
    style = rng.random()
    depth = INRADIUS[thing.shape] * min(thing.width, thing.height)
    if style < STROKED_SHARE and thing.shape not in ("cross", "star") and thing.color != "white":
        thing.stroke = min(max(0.09 * min(thing.width, thing.height), 3.0), 0.6 * depth) * rng.uniform(1.0, 1.5)
    elif style < STROKED_SHARE + EDGED_SHARE:
        rim = (0, 0, 0) if rng.random() < 0.6 else mix(thing.rgb, (0, 0, 0), 0.6)
        if distance(rim, thing.rgb) >= EDGE_CONTRAST and thing.color != "black":
            thing.edge = min(max(1.5, 0.03 * min(thing.width, thing.height)), 0.25 * depth)
            thing.edge_rgb = rim
    return thing


def compose(rng: Random, level: int) -> Scene:
    """One scene of the given level."""
    theme = rng.choices(THEMES, THEME_WEIGHTS[level])[0]
    size = _sample_size(rng, theme)
    background = sample_background(rng, plainer=theme == "chart")
    scene = Scene(*size, background)
    if theme == "chart":
        scene.chart = sample_chart(rng, size, background)
    elif theme == "text":
        _add_text(rng, scene, level)
    elif theme == "objects":
        room = Box(0, 0, *size)
        if level == max(LEVELS) and rng.random() < AXES_SHARE:
            room = scene.axes = _axes(rng, scene)
        weights = COUNT_WEIGHTS[level]
        count = rng.choices(range(1, len(weights) + 1), weights)[0]
        scene.things = place_things(rng, room, background, count)
    elif theme == "labelled":
        _add_labelled(rng, scene)
    else:
        _add_captioned(rng, scene)
    return scene


def compose_nothing(rng: Random) -> Scene:
    """A scene of a texture, in which nothing has a name."""
    size = _sample_size(rng, "objects")
    return Scene(*size, sample_background(rng), texture=sample_texture(rng))


def _axes(rng: Random, scene: Scene) -> Box:
    """The inside of a plot's frame: margins as plotting libraries leave them."""
    left, top = rng.uniform(0.08, 0.14) * scene.width, rng.uniform(0.04, 0.12) * scene.height
    right, bottom = rng.uniform(0.04, 0.1) * scene.width, rng.uniform(0.08, 0.13) * scene.height
    return Box(left, top, scene.width - right, scene.height - bottom)


def _sample_size(rng: Random, theme: str) -> tuple[int, int]:
    """Width and height: both within the limits, neither more than twice the other."""
    shortest = CHART_SHORTEST if theme == "chart" else SHORTEST_SIDE
    side = round(shortest * (LONGEST_SIDE / shortest) ** rng.random())
    if rng.random() < SQUARE_SHARE:
        return side, side
    aspect = rng.uniform(1.0, 1.6 if theme == "chart" else 2.0)
    short, long = max(shortest, round(side / aspect)), side
    long = max(short, min(long, 2 * short))
    return (long, short) if rng.random() < 0.55 else (short, long)


def _sample_text(rng: Random) -> tuple[str, WritingKind]:
    kind = rng.choices(("word", "letter", "number"), TEXT_WEIGHTS)[0]
    if kind == "word":
        return sample_word(rng), "word"
    return (sample_letter(rng), "letter") if kind == "letter" else (sample_number(rng), "number")


def _add_text(rng: Random, scene: Scene, level: int) -> None:
    """One run of text, or from level 2 on up to three of different colours, one under the other."""
    lines = 1 if level < 2 else rng.choices((1, 2, 3), LINE_WEIGHTS)[0]
    names = [name for name in COLORS if name != scene.background.name]
    margin = 0.03 * scene.short_side
    height = (scene.height - 2 * margin) / lines
    cap = readable_cap((scene.width, scene.height))
    seen: set[str] = set()
    for line in range(lines):
        room = Box(margin, margin + line * height, scene.width - margin, margin + (line + 1) * height)
        for _ in range(6):
            text, kind = _sample_text(rng)
            if text.lower() in seen:
                continue
            share = 0.95 if kind == "word" else 0.75
            writing = fit_writing(rng, text, kind, room, cap, under_of(scene.background), tuple(names), share)
            if writing is not None:
                scene.writings.append(writing)
                seen.add(text.lower())
                names.remove(writing.color)
                break
    if not scene.writings:
        scene.things = place_things(rng, Box(0, 0, scene.width, scene.height), scene.background, 1)


def _add_labelled(rng: Random, scene: Scene) -> None:
    """One to four things, most with a letter or a digit inside."""
    count = rng.choices((1, 2, 3, 4), LABELLED_WEIGHTS)[0]
    room = Box(0, 0, scene.width, scene.height)
    scene.things = place_things(rng, room, scene.background, count, smallest=LABELLED_SMALLEST)
    used: set[str] = set()
    for thing in scene.things:
        writing = _letter_inside(rng, scene, thing) if thing.shape in LABELLED else None
        if writing is not None and writing.text.lower() not in used:
            thing.writing = writing
            used.add(writing.text.lower())


def _letter_inside(rng: Random, scene: Scene, thing: Thing) -> Writing | None:
    text, kind = (sample_letter(rng), "letter") if rng.random() < 0.7 else (sample_number(rng, 1), "number")
    face = sample_face(rng)
    height = min(thing.height, 1.2 * thing.width) - 2 * thing.stroke
    cap = LETTER_SHARE.get(thing.shape, 0.45) * height * rng.uniform(0.85, 1.0)
    size = font_size(face, cap)
    if cap < readable_cap((scene.width, scene.height)):
        return None
    under = under_of(scene.background) if thing.stroke else (thing.rgb,)
    color, rgb = rng.choice((("white", (255, 255, 255)), ("black", (0, 0, 0))))
    if rng.random() < 0.3 or not legible(rgb, under):
        ink = sample_legible(rng, under, COLORS)
        if ink is None:
            return None
        color, rgb = ink
    return write_at(text, kind, color, rgb, face, size, thing.center)  # type: ignore[arg-type]


def _add_captioned(rng: Random, scene: Scene) -> None:
    """A word above or below one to three things."""
    share = rng.uniform(0.25, 0.4)
    margin = 0.03 * scene.short_side
    above = rng.random() < 0.5
    split = scene.height * (share if above else 1 - share)
    room = Box(margin, margin if above else split, scene.width - margin, split if above else scene.height - margin)
    cap = readable_cap((scene.width, scene.height))
    under = under_of(scene.background)
    dark = luma(scene.background.rgb) < DARK_LUMA
    names = tuple(name for name in (COLORS if dark else WORD_COLORS) if name != scene.background.name)
    writing = fit_writing(rng, sample_word(rng), "word", room, cap, under, names)
    if writing is not None:
        scene.writings.append(writing)
    rest = Box(0, split if above else 0, scene.width, scene.height if above else split)
    count = rng.choices((1, 2, 3), CAPTIONED_WEIGHTS)[0]
    scene.things = place_things(rng, rest, scene.background, count, CAPTIONED_SMALLEST)
