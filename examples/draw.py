"""Draw the pictures of examples/, none of them with the renderers that the small model was trained on.

    python examples/draw.py          # needs the train extra (matplotlib)

Plain Pillow and matplotlib with its defaults: a chart, shapes, a word, as somebody else's program would draw them.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle, RegularPolygon

HERE = Path(__file__).parent


def shapes(path: Path) -> None:
    """A red circle on the left, a blue square on the right, a green triangle below."""
    figure = Figure(figsize=(4, 4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10), ylim=(0, 10))
    axes.axis("off")
    axes.add_patch(Circle((2.5, 7), 1.6, color="red"))
    axes.add_patch(Rectangle((6, 5.6), 2.8, 2.8, color="blue"))
    axes.add_patch(RegularPolygon((5, 2.2), 3, radius=1.9, color="green"))
    figure.savefig(path)


def counting(path: Path) -> None:
    """Four orange hexagons and a purple circle on grey."""
    figure = Figure(figsize=(5, 4), dpi=90, facecolor="lightgray")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10), ylim=(0, 8))
    axes.axis("off")
    for x, y in ((1.8, 6.2), (5, 5.4), (8.2, 6.4), (3.2, 2)):
        axes.add_patch(RegularPolygon((x, y), 6, radius=1.2, color="orange"))
    axes.add_patch(Circle((7.4, 2.2), 1.2, color="purple"))
    figure.savefig(path)


def chart(path: Path) -> None:
    """A bar chart with matplotlib's defaults."""
    figure = Figure(figsize=(4, 3.4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.bar(["A", "B", "C"], [3, 8, 5])
    figure.savefig(path)


def word(path: Path) -> None:
    """One short word."""
    figure = Figure(figsize=(4, 2), dpi=100)
    FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, "Sun", fontsize=72, color="black", ha="center", va="center")
    figure.savefig(path)


if __name__ == "__main__":
    for draw in (shapes, counting, chart, word):
        draw(HERE / f"{draw.__name__}.png")
