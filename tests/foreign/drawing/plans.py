"""What each foreign picture is to show, decided before anything is drawn.

In: nothing; every choice is made by a random stream of a fixed seed. Out: `all_plans()`, a list of `Plan`. Only names
of colours and shapes are shared with the drawn world: sizes, places, words, backgrounds and renderers are of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

SEED = 2412
SIDE = 3
"""Things stand in the cells of a grid of SIDE x SIDE."""
SIZES = ((300, 300), (360, 240), (320, 240), (240, 320), (420, 300), (280, 200))
SHAPES = (
    "circle", "square", "rectangle", "triangle", "star", "hexagon", "oval", "diamond", "pentagon", "heart", "cross",
)  # fmt: skip
COLORS: dict[str, tuple[str, ...]] = {
    "red": ("red", "#d62728", "crimson", "#e53935"),
    "green": ("green", "limegreen", "#2ca02c", "#43a047"),
    "blue": ("blue", "#1f77b4", "royalblue", "#1e88e5"),
    "yellow": ("yellow", "gold", "#fdd835"),
    "orange": ("orange", "#ff7f0e", "darkorange"),
    "purple": ("purple", "#9467bd", "#663399"),
    "black": ("black",),
    "gray": ("gray", "#7f7f7f"),
    "pink": ("hotpink", "#e377c2"),
    "brown": ("#8b4513", "#8c564b"),
    "cyan": ("cyan", "#17becf"),
    "white": ("white",),
}
"""A colour's name -> ways to write it that browsers, matplotlib and ImageMagick all know."""
GROUNDS = (("white", "white"), ("white", "white"), ("#f5f0e6", None), ("#eef2f7", None), ("#222831", None))
"""Backgrounds: how they are written, and their names where people would agree on one."""
DARK_GROUNDS = ("#222831",)
FAINT = {"white": ("white", "yellow", "pink", "cyan"), "dark": ("black", "brown", "gray", "purple")}
"""Colours that are hard to see on a light and on a dark ground."""
WORDS = (
    "Open", "Exit", "Milk", "TAXI", "Tea", "Stop", "Hello", "Bus", "SALE", "Bread", "river", "Ice", "Home", "Fish",
    "Lemon", "GO", "Music", "Paris", "salt", "Wood", "Help", "Moon",
)  # fmt: skip
NUMBERS = ("42", "7", "365", "19", "2048", "88", "5", "610")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun")
LETTERS = ("A", "B", "C", "D", "E", "F")
MARKERS = {
    "circle": "o", "square": "s", "triangle": "^", "star": "*", "diamond": "D", "pentagon": "p", "hexagon": "h",
    "cross": "P",
}  # fmt: skip
"""Shapes that are markers of matplotlib's."""
BIG, SMALL = 0.92, 0.5
"""Of a cell: sizes of things whose sizes are compared."""
USUAL = (0.62, 0.85)


@dataclass
class Item:
    """One shape: its cell (column, row), its size as a share of the cell, its colour's name and how that is written."""

    shape: str
    color: str
    code: str
    column: int
    row: int
    size: float


@dataclass
class Line:
    """One run of text, with its colour's name."""

    text: str
    color: str
    code: str

    @property
    def kind(self) -> str:
        return "number" if self.text.isdigit() else "word"


@dataclass
class Bars:
    """A bar chart."""

    labels: list[str]
    values: list[int]
    color: str
    code: str
    horizontal: bool
    numbered: bool


@dataclass
class Plan:
    """One picture: `tool` draws it in its `style`; it holds items, or lines, or bars, or nothing that has a name."""

    tool: str
    name: str
    style: str
    size: tuple[int, int]
    ground: str
    ground_name: str | None
    items: list[Item] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    bars: Bars | None = None

    @property
    def stream(self) -> Random:
        """A random stream of its own."""
        return Random(f"{SEED}/{self.tool}/{self.name}")


TOOLS: dict[str, dict[str, tuple[int, tuple[str, ...]]]] = {
    "browser": {
        "items": (20, ("svg", "css")),
        "lines": (10, ("heading", "button", "svg")),
        "bars": (8, ("css", "svg")),
        "nothing": (6, ("linear", "conic", "turbulence", "stripes", "radial", "blank")),
    },
    "matplotlib": {
        "items": (16, ("markers", "patches")),
        "lines": (6, ("text", "title")),
        "bars": (12, ("axes",)),
        "nothing": (6, ("imshow", "contour", "curve")),
    },
    "imagemagick": {
        "items": (20, ("draw", "stroked", "blurred")),
        "lines": (10, ("annotate", "label")),
        "nothing": (6, ("plasma", "noise", "gradient", "swirl")),
    },
}
"""Tool -> what is shown -> how many pictures, and the styles they take turns in."""


def all_plans() -> list[Plan]:
    """Every picture of the set, in order."""
    makers = {"items": _items, "lines": _lines, "bars": _bars, "nothing": _nothing}
    plans = []
    for tool, contents in TOOLS.items():
        for content, (count, styles) in contents.items():
            for number in range(count):
                name = f"{content}-{number:02d}"
                rng = Random(f"{SEED}/{tool}/{name}/plan")
                ground, ground_name = rng.choice(GROUNDS)
                plan = Plan(tool, name, styles[number % len(styles)], rng.choice(SIZES), ground, ground_name)
                makers[content](rng, plan)
                plans.append(plan)
    return plans


def _visible(plan: Plan) -> list[str]:
    faint = FAINT["dark" if plan.ground in DARK_GROUNDS else "white"]
    return [name for name in COLORS if name not in faint]


def _items(rng: Random, plan: Plan) -> None:
    """One to five shapes, no two alike in shape and colour; two of clearly different sizes now and then."""
    count = rng.choices((1, 2, 3, 4, 5), (20, 30, 25, 15, 10))[0]
    cells = rng.sample([(column, row) for column in range(SIDE) for row in range(SIDE)], count)
    if count == 1:
        cells = [(1, 1)] if rng.random() < 0.5 else cells
    colors = _visible(plan)
    kinds = [rng.choice(SHAPES) for _ in range(count)]
    if count >= 3 and rng.random() < 0.6:
        kinds[1] = kinds[0]  # something to count
    taken: set[tuple[str, str]] = set()
    sizes = [BIG, SMALL] if count == 2 and rng.random() < 0.6 else [rng.uniform(*USUAL) for _ in range(count)]
    for (column, row), shape, size in zip(cells, kinds, sizes, strict=True):
        color = rng.choice([name for name in colors if (shape, name) not in taken])
        taken.add((shape, color))
        plan.items.append(Item(shape, color, rng.choice(COLORS[color]), column, row, size))
    if plan.style == "markers" and not set(kinds) <= set(MARKERS):
        plan.style = "patches"


def _lines(rng: Random, plan: Plan) -> None:
    """A word or a number; sometimes two, one under the other."""
    texts = rng.sample(WORDS, 2) if rng.random() < 0.25 else [rng.choice(WORDS if rng.random() < 0.7 else NUMBERS)]
    for text, color in zip(texts, rng.sample(_visible(plan), len(texts)), strict=True):
        plan.lines.append(Line(text, color, rng.choice(COLORS[color])))


def _bars(rng: Random, plan: Plan) -> None:
    """Three to five bars of clearly different heights, on white."""
    plan.ground, plan.ground_name = "white", "white"
    count = rng.randint(3, 5)
    labels = list((LETTERS if rng.random() < 0.6 else MONTHS)[:count])
    values = rng.sample(range(1, 11), count)
    color = rng.choice(("blue", "blue", "orange", "green", "red", "purple"))
    plan.bars = Bars(labels, values, color, COLORS[color][1], rng.random() < 0.3, rng.random() < 0.6)
    plan.size = (420, 300)


def _nothing(rng: Random, plan: Plan) -> None:
    """Only a ground; the style says which."""
    plan.size = rng.choice(((240, 200), (200, 200), (260, 180)))
