"""Decides what a picture shows: objects, text, a chart or a mixture, by level of difficulty.

In: a random stream and a level 0..3. Out: a `Scene`.
"""

from random import Random

from flashsloth.world.background import DARK_LUMA, sample_background
from flashsloth.world.chart import sample_chart
from flashsloth.world.colors import legible, luma, sample_legible
from flashsloth.world.lexicon import sample_letter, sample_number, sample_word
from flashsloth.world.placement import place_things
from flashsloth.world.scene import Box, Scene, Thing, Writing, WritingKind
from flashsloth.world.text import fit_writing, font_size, readable_cap, sample_face, under_of, write_at
from flashsloth.world.textures import sample_texture
from flashsloth.world.vocabulary import COLORS

LEVELS = (0, 1, 2, 3)
THEMES = ("objects", "text", "chart", "labelled", "captioned")
THEME_WEIGHTS = {0: (75, 25, 0, 0, 0), 1: (75, 25, 0, 0, 0), 2: (66, 20, 0, 7, 7), 3: (60, 15, 15, 5, 5)}
COUNT_WEIGHTS = {  # of things, from one upwards
    0: (1,),
    1: (35, 65),
    2: (18, 30, 28, 24),
    3: (14, 21, 17, 13, 11, 9, 8, 7),
}
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
        scene.things = place_things(rng, room, background, _sample_count(rng, level))
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


def _sample_count(rng: Random, level: int) -> int:
    weights = COUNT_WEIGHTS[level]
    return rng.choices(range(1, len(weights) + 1), weights)[0]


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


def _text_colors(scene: Scene) -> tuple[str, ...]:
    return tuple(name for name in COLORS if name != scene.background.name)


def _add_text(rng: Random, scene: Scene, level: int) -> None:
    """One run of text, or from level 2 on up to three of different colours, one under the other."""
    lines = 1 if level < 2 else rng.choices((1, 2, 3), LINE_WEIGHTS)[0]
    names = list(_text_colors(scene))
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
    scene.things = place_things(
        rng, rest, scene.background, rng.choices((1, 2, 3), CAPTIONED_WEIGHTS)[0], CAPTIONED_SMALLEST
    )
