"""Corners of the shapes that have no primitive of their own in a browser or in ImageMagick.

In: a shape's name. Out: its corners in a square from (-1, -1) to (1, 1), y downwards.
"""

from __future__ import annotations

from math import cos, pi, sin

Point = tuple[float, float]
CORNERS = {"triangle": 3, "pentagon": 5, "hexagon": 6, "diamond": 4}
STAR_WAIST = 0.4
ARM = 1 / 3
"""Half the width of a cross's arms."""


def corners(shape: str) -> list[Point]:
    """The corners of `shape`, clockwise from the top."""
    if shape in CORNERS:
        return _around([1.0] * CORNERS[shape])
    if shape == "star":
        return _around([1.0, STAR_WAIST] * 5)
    if shape == "cross":
        a = ARM
        return [
            (-a, -1),
            (a, -1),
            (a, -a),
            (1, -a),
            (1, a),
            (a, a),
            (a, 1),
            (-a, 1),
            (-a, a),
            (-1, a),
            (-1, -a),
            (-a, -a),
        ]
    if shape == "heart":  # a well-known curve
        ts = [2 * pi * step / 48 for step in range(48)]
        return [(sin(t) ** 3, -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) / 16) for t in ts]
    raise ValueError(f"{shape} has no corners")


def _around(radii: list[float]) -> list[Point]:
    angles = [2 * pi * number / len(radii) for number in range(len(radii))]
    return [(radius * sin(angle), -radius * cos(angle)) for radius, angle in zip(radii, angles, strict=True)]


def placed(shape: str, center: Point, radius: float) -> list[Point]:
    """The corners around a place in a picture."""
    return [(center[0] + radius * x, center[1] + radius * y) for x, y in corners(shape)]
