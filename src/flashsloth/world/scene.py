"""What is in a picture, before any pixel is drawn: things, writing, a chart, a background; and outlines of shapes.

In: the numbers that placement chose. Out: plain records that renderers, questions, captions and patch labels all read,
so that what is asked is what was drawn. Lengths are pixels of the native picture; y grows downwards. Outlines are lists
of points, built about the origin, the point that they shrink towards when a line or a rim is drawn inside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from flashsloth.world.colors import RGB
from flashsloth.world.fonts import Face

Point = tuple[float, float]
WritingKind = Literal["word", "letter", "number"]
BackgroundStyle = Literal["plain", "gradient", "radial", "noise", "grid"]
TextureStyle = Literal["clouds", "hills", "blend", "noise", "stripes", "scribble", "blank"]
Frame = Literal["box", "corner", "base", "none"]
CURVE_POINTS = 72  # enough that a circle 170 px wide, drawn at 4x, shows no corners
STAR_INNER = 0.42  # a star's inner radius over its outer one
CROSS_ARM = 1 / 3  # a cross's arm width over its whole width
# How far the border of a shape one unit wide lies from the origin, at the nearest.
INRADIUS = {
    "circle": 0.5, "oval": 0.5, "square": 0.5, "rectangle": 0.5, "triangle": 0.289, "hexagon": 0.433, "pentagon": 0.405,
    "diamond": 0.35, "star": 0.19, "heart": 0.33, "cross": 0.167,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def center(self) -> Point:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def corners(self) -> list[Point]:
        return [(self.left, self.top), (self.right, self.top), (self.right, self.bottom), (self.left, self.bottom)]

    def meets(self, other: Box, margin: float = 0.0) -> bool:
        """Whether the two come closer than `margin` to each other."""
        across = self.left < other.right + margin and other.left < self.right + margin
        return across and self.top < other.bottom + margin and other.top < self.bottom + margin


@dataclass(slots=True)
class Writing:
    """A run of text. `origin` is the left end of its baseline before it is turned by `angle` about its centre."""

    text: str
    kind: WritingKind
    color: str
    rgb: RGB
    face: Face
    size: int
    origin: Point
    box: Box
    angle: float = 0.0


@dataclass(slots=True)
class Thing:
    """One shape. `outline` is its border; `stroke` > 0 draws only a line that thick, `edge` > 0 adds a dark rim."""

    shape: str
    color: str
    rgb: RGB
    center: Point
    width: float
    height: float
    rotation: float
    outline: list[Point]
    box: Box
    area: float
    stroke: float = 0.0
    edge: float = 0.0
    edge_rgb: RGB = (0, 0, 0)
    writing: Writing | None = None

    @property
    def name(self) -> str:
        """How a caption or an answer calls it: "red circle"."""
        return f"{self.color} {self.shape}"


@dataclass(slots=True)
class Bar:
    """One bar of a chart: what it stands for, where it is, and the writing beside it."""

    label: str
    value: int
    color: str
    rgb: RGB
    box: Box


@dataclass(slots=True)
class Chart:
    """A bar chart. `readable` says whether every value can be read off; `clear_gap` is the least clear difference."""

    bars: list[Bar]
    horizontal: bool
    readable: bool
    clear_gap: int
    plot: Box
    axis_rgb: RGB
    ticks: list[tuple[float, Writing | None]] = field(default_factory=list)
    grid: bool = False
    frame: Frame = "corner"
    roundness: float = 0.0
    edged: bool = False
    writings: list[Writing] = field(default_factory=list)


@dataclass(slots=True)
class Background:
    """What lies under everything. `name` is its colour's name where people would agree on one."""

    style: BackgroundStyle
    rgb: RGB
    second_rgb: RGB
    name: str | None
    angle: int = 0
    strength: int = 0

    @property
    def can_be_named(self) -> bool:
        """Whether it has one colour all over, and a name for it."""
        return self.name is not None and self.style not in ("gradient", "radial")


@dataclass(frozen=True, slots=True)
class Texture:
    """What fills a picture of nothing: its style, its colours, and the seed of the rest."""

    style: TextureStyle
    colors: tuple[RGB, ...]
    seed: int


@dataclass(slots=True)
class Scene:
    """A whole picture: its size, background, and what stands on it.

    `axes` is a thin frame with ticks around the things, as plotting libraries draw it; nothing is asked about it.
    A picture with a `texture` shows that instead of its background, and nothing else.
    """

    width: int
    height: int
    background: Background
    things: list[Thing] = field(default_factory=list)
    writings: list[Writing] = field(default_factory=list)
    chart: Chart | None = None
    axes: Box | None = None
    texture: Texture | None = None

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)

    @property
    def long_side(self) -> int:
        return max(self.width, self.height)


def _ring(corners: int, radius: float = 0.5) -> list[Point]:
    """A regular polygon with one corner straight up."""
    return [
        (radius * math.sin(2 * math.pi * k / corners), -radius * math.cos(2 * math.pi * k / corners))
        for k in range(corners)
    ]


def _star() -> list[Point]:
    outer, inner = _ring(5), _ring(5, 0.5 * STAR_INNER)
    turn = math.pi / 5
    turned = [(x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)) for x, y in inner]
    return [point for pair in zip(outer, turned, strict=True) for point in pair]


def _heart() -> list[Point]:
    points = []
    for k in range(CURVE_POINTS):
        t = 2 * math.pi * k / CURVE_POINTS
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 32, -y / 32))
    return points


def _cross() -> list[Point]:
    arm, end = CROSS_ARM / 2, 0.5
    quarter = [(arm, -end), (arm, -arm), (end, -arm)]
    points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


@cache
def unit_outline(shape: str) -> tuple[Point, ...]:
    """The outline of `shape` inside a unit square about the origin, unturned."""
    square = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
    outlines = {
        "circle": lambda: _ring(CURVE_POINTS),
        "oval": lambda: _ring(CURVE_POINTS),
        "square": lambda: square,
        "rectangle": lambda: square,
        "triangle": lambda: _ring(3, 1 / math.sqrt(3)),
        "star": _star,
        "hexagon": lambda: _ring(6),
        "pentagon": lambda: _ring(5),
        "diamond": lambda: _ring(4),
        "heart": _heart,
        "cross": _cross,
    }
    return tuple(outlines[shape]())


def outline(shape: str, center: Point, width: float, height: float, rotation: float) -> list[Point]:
    """The outline of `shape`, `width` x `height` before it is turned by `rotation` degrees about `center`."""
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    x0, y0 = center
    a, b, c, d = width * cos, height * sin, width * sin, height * cos
    return [(x0 + x * a - y * b, y0 + x * c + y * d) for x, y in unit_outline(shape)]


def inner_outline(shape: str, center: Point, width: float, height: float, rotation: float, depth: float) -> list[Point]:
    """The outline that lies about `depth` pixels inside the one of `outline`."""
    if shape in ("rectangle", "oval", "square", "circle"):
        return outline(shape, center, width - 2 * depth, height - 2 * depth, rotation)
    kept = max(0.0, 1 - depth / (INRADIUS[shape] * min(width, height)))
    return outline(shape, center, width * kept, height * kept, rotation)


def bounds(points: list[Point]) -> Box:
    """The smallest upright box around `points`."""
    xs, ys = zip(*points, strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def area(points: list[Point]) -> float:
    """The area inside a closed outline (the shoelace sum)."""
    total, (last_x, last_y) = 0.0, points[-1]
    for x, y in points:
        total += last_x * y - x * last_y
        last_x, last_y = x, y
    return abs(total) / 2
