"""Outlines of shapes as points, and the few sums that placement and drawing need from them.

In: a shape's name, its size and turn. Out: lists of (x, y) points in pixels, boxes, areas. Outlines are built about the
origin, the point that an outline shrinks towards when a line or a rim is drawn inside it.
"""

import math
from functools import cache

from flashsloth.world.scene import Box, Point

CURVE_POINTS = 72  # enough that a circle 170 px wide, drawn at 4x, shows no corners
STAR_INNER = 0.42  # a star's inner radius over its outer one
CROSS_ARM = 1 / 3  # a cross's arm width over its whole width
# How far the border of a shape one unit wide lies from the origin, at the nearest.
INRADIUS = {
    "circle": 0.5, "oval": 0.5, "square": 0.5, "rectangle": 0.5, "triangle": 0.289, "hexagon": 0.433, "pentagon": 0.405,
    "diamond": 0.35, "star": 0.19, "heart": 0.33, "cross": 0.167,
}  # fmt: skip


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
