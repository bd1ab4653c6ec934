"""Foreign pictures made by matplotlib, its defaults left as they are: markers, patches, text, bar charts, fields.

In: plans. Out: a PNG each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, Polygon, Rectangle, RegularPolygon
from outlines import placed
from plans import MARKERS, SIDE, Item, Plan

DPI = 80
POINTS = 72
"""An inch has so many."""
COLORMAPS = ("viridis", "plasma", "terrain", "gray")


def draw(plan: Plan, path: Path) -> None:
    """Save the plan's figure."""
    figure = Figure(figsize=(plan.size[0] / DPI, plan.size[1] / DPI), dpi=DPI, facecolor=plan.ground)
    FigureCanvasAgg(figure)
    if plan.items and plan.style == "markers":
        _markers(figure.subplots(), plan)
    elif plan.items:
        _patches(_bare(figure, plan), plan)
    elif plan.lines:
        _text(figure, plan)
    elif plan.bars is not None:
        _bars(figure.subplots(), plan)
    else:
        _field(figure, plan)
    figure.savefig(path, dpi=DPI, pil_kwargs={"optimize": True})


def _bare(figure: Figure, plan: Plan) -> Axes:
    """Axes over the whole figure, in px, y downwards, without ticks."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, plan.size[0]), ylim=(plan.size[1], 0))
    axes.axis("off")
    return axes


def _markers(axes: Axes, plan: Plan) -> None:
    """Large markers of a scatter plot, axes and all."""
    axes.set(xlim=(0, SIDE), ylim=(SIDE, 0), facecolor=plan.ground)
    if plan.ground_name is None:
        axes.figure.set_facecolor("white")
    inches = min(plan.size) * 0.7 / SIDE / DPI
    for item in plan.items:
        area = (item.size * inches * POINTS) ** 2
        axes.scatter(item.column + 0.5, item.row + 0.5, s=area, marker=MARKERS[item.shape], color=item.code)


def _patches(axes: Axes, plan: Plan) -> None:
    width, height = plan.size[0] / SIDE, plan.size[1] / SIDE
    for item in plan.items:
        center = (item.column + 0.5) * width, (item.row + 0.5) * height
        axes.add_patch(_patch(item, center, item.size * min(width, height) / 2))


def _patch(
    item: Item, center: tuple[float, float], r: float
) -> Circle | Ellipse | Rectangle | Polygon | RegularPolygon:
    x, y = center
    if item.shape == "circle":
        return Circle(center, r, color=item.code)
    if item.shape == "oval":
        return Ellipse(center, 2 * r, 1.2 * r, color=item.code)
    if item.shape == "square":
        return Rectangle((x - 0.85 * r, y - 0.85 * r), 1.7 * r, 1.7 * r, color=item.code)
    if item.shape == "rectangle":
        return Rectangle((x - r, y - 0.55 * r), 2 * r, 1.1 * r, color=item.code)
    if item.shape in ("pentagon", "hexagon"):
        return RegularPolygon(center, {"pentagon": 5, "hexagon": 6}[item.shape], radius=r, color=item.code)
    return Polygon(placed(item.shape, center, r), color=item.code)


def _text(figure: Figure, plan: Plan) -> None:
    longest = max(len(line.text) for line in plan.lines)
    size = min(plan.size[1] * 0.45 / len(plan.lines), plan.size[0] * 1.1 / longest) * POINTS / DPI
    for number, line in enumerate(plan.lines):
        height = 1 - (number + 0.5) / len(plan.lines)
        options = {"family": "serif"} if plan.style == "title" else {}
        figure.text(0.5, height, line.text, size=size, color=line.code, ha="center", va="center", **options)


def _bars(axes: Axes, plan: Plan) -> None:
    bars = plan.bars
    assert bars is not None
    make = axes.barh if bars.horizontal else axes.bar
    container = make(bars.labels, bars.values, color=bars.code)
    if bars.numbered:
        axes.bar_label(container)
    axes.tick_params(labelsize=14)


def _field(figure: Figure, plan: Plan) -> None:
    """Smooth random fields, and a curve: nothing that the questions of this set know."""
    rng = np.random.default_rng(plan.stream.randrange(1000))
    if plan.style == "curve":
        steps = np.linspace(0, 10, 200)
        figure.subplots().plot(steps, np.sin(steps * rng.uniform(0.5, 2)) + rng.normal(0, 0.05, 200))
        return
    waves = rng.normal(size=(6, 6))
    ys, xs = np.mgrid[0:1:120j, 0:1:120j]
    field = sum(waves[i, j] * np.sin(3 * i * xs + 4 * j * ys + waves[j, i]) for i in range(6) for j in range(6))
    axes = _bare(figure, plan)
    axes.set(xlim=(0, 119), ylim=(119, 0))
    colors = COLORMAPS[rng.integers(len(COLORMAPS))]
    if plan.style == "imshow":
        axes.imshow(field, cmap=colors, aspect="auto")
    else:
        axes.contourf(field, levels=12, cmap=colors)
