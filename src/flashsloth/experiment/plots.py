"""Pictures of an experiment: right answers of each variant, by kind of question, and over queries and layers.

In: rows. Out: PNG files with their titles.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsloth.experiment.poolings import SAP
from flashsloth.experiment.results import ALL, Row
from flashsloth.world import KINDS

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
PERCENT = 100
WITH, WITHOUT = "#009e73", "#56606b"
"""With EmbQ and without."""
GRID: dict[str, Any] = {"color": "#d8dce0", "linewidth": 0.8}
ROW_HEIGHT, LEAST_HEIGHT, WIDTH = 0.34, 2.6, 8.0
"""Inches."""
DEFAULT_POOL = 3
COLORMAP = "viridis"


def draw_plots(rows: list[Row], folder: Path, name: str) -> list[tuple[str, Path]]:
    """Draw what the rows allow: title and file of each plot."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = []
    plain = [row for row in rows if row.variant.num_query_tokens is None and row.variant.embq_layer is None]
    jobs: list[tuple[str, str, bool, Callable[[Figure], None]]] = [
        ("Right answers of each connector", "all", bool(plain), lambda figure: _all(figure, plain)),
        ("Right answers by kind of question", "kinds", bool(plain), lambda figure: _kinds(figure, plain)),
        ("Right answers over EmbQ's queries", "queries", _varies(rows, "num_query_tokens"),
         lambda figure: _over(figure, rows, "num_query_tokens", "query tokens")),
        ("Right answers over EmbQ's layer", "layers", _varies(rows, "embq_layer"),
         lambda figure: _over(figure, rows, "embq_layer", "decoder layer before which EmbQ acts")),
    ]  # fmt: skip
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        for title, suffix, possible, draw in jobs:
            if possible:
                height = max(LEAST_HEIGHT, ROW_HEIGHT * len(plain) + 1) if suffix in ("all", "kinds") else 3.2
                figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
                FigureCanvasAgg(figure)
                draw(figure)
                path = folder / f"{name}-{suffix}.png"
                figure.savefig(path)
                drawn.append((title, path))
    return drawn


def _all(figure: Figure, rows: list[Row]) -> None:
    """A dot for each seed, a line at the mean; the first variant on top."""
    axes = figure.subplots()
    for place, row in enumerate(rows):
        color = WITH if row.variant.embq else WITHOUT
        values = [PERCENT * value for value in row.shares[ALL].values]
        axes.plot(values, [place] * len(values), "o", color=color, alpha=0.55, markersize=5)
        axes.plot([PERCENT * row.shares[ALL].mean] * 2, [place - 0.3, place + 0.3], color=color, linewidth=2.2)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("right answers, %")
    axes.grid(axis="x", **GRID)
    axes.set_axisbelow(True)
    for color, text in ((WITH, "with EmbQ"), (WITHOUT, "without")):
        axes.plot([], [], "o", color=color, label=text)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)


def _kinds(figure: Figure, rows: list[Row]) -> None:
    """A field for each variant and kind."""
    kinds = [kind for kind in KINDS if any(kind in row.shares for row in rows)]
    axes = figure.subplots()
    means = [
        [PERCENT * row.shares[kind].mean if kind in row.shares else float("nan") for kind in kinds] for row in rows
    ]
    field = axes.imshow(means, aspect="auto", cmap=COLORMAP, vmin=0, vmax=PERCENT)
    for y, line in enumerate(means):
        for x, mean in enumerate(line):
            axes.text(
                x, y, f"{mean:.0f}", ha="center", va="center", color="black" if mean > 60 else "white", fontsize=8
            )
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.tick_params(length=0)
    figure.colorbar(field, ax=axes, label="right answers, %", fraction=0.04)


def _over(figure: Figure, rows: list[Row], setting: str, title: str) -> None:
    """Right answers over one setting of EmbQ, everything else as it is."""
    axes: Axes = figure.subplots()
    found = [(_value(row, setting), row.shares[ALL]) for row in rows]
    points = sorted(((value, share) for value, share in found if value is not None), key=lambda point: point[0])
    axes.errorbar(
        [value for value, _ in points],
        [PERCENT * share.mean for _, share in points],
        yerr=[PERCENT * (share.deviation or 0.0) for _, share in points],
        marker="o", color=WITH, capsize=3,
    )  # fmt: skip
    axes.set_xticks([value for value, _ in points])
    axes.set_xlabel(title)
    axes.set_ylabel("right answers, %")
    axes.grid(axis="y", **GRID)


def _varies(rows: list[Row], setting: str) -> bool:
    return any(getattr(row.variant, setting) is not None for row in rows)


def _value(row: Row, setting: str) -> int | None:
    """The setting of a variant that differs from the usual one in it alone, or not at all."""
    variant = row.variant
    other = {"num_query_tokens": "embq_layer", "embq_layer": "num_query_tokens"}[setting]
    usual = variant.pooling == SAP and variant.embq and variant.pool_size == DEFAULT_POOL
    return row.settings.get(setting) if usual and getattr(variant, other) is None else None


def _label(row: Row) -> str:
    tokens = row.cost.get("visual_tokens")
    return row.variant.name if tokens is None else f"{row.variant.name} ({tokens} tokens)"


__all__ = ["draw_plots"]
