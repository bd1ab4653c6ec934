"""Two pictures of the results: how long an answer takes beside how many visual tokens are read, and where time goes.

In: :class:`Results`. Out: PNG files.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flashsloth.benchmark.results import SHOWN_STAGES, Figures, Results, all_figures
from flashsloth.benchmark.workload import BASELINE, HEIGHT, WIDTH
from flashsloth.planning.machine import readable

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

RESPONSE_FILE, STAGES_FILE = "response_time.png", "where_time_goes.png"
RESPONSE_TITLE = "Response time beside visual tokens"
STAGES_TITLE = "Where the time goes"
DPI = 160
OURS, THEIRS = "#009e73", "#56606b"
STAGE_COLORS = ("#f0e442", "#0072b2", "#56b4e9", "#cc79a7", "#009e73", "#999999")
DECODE_COLOR = "#e69f00"
"""All of a palette that people tell apart whatever colors they see (Okabe and Ito)."""
GRID: dict[str, Any] = {"color": "#d8dce0", "linewidth": 0.8}
LABEL_SIZE = 9
HEADROOM = 1.15
"""Of the highest or longest value, so that its label fits."""
SIDE_ROOM = 1.5, 2.2
"""Of the least and the largest count of tokens, likewise."""
DOT_PIXELS = 6.0
"""Half of what a dot covers, at the resolution that labels are placed in."""


class LabelPlace(NamedTuple):
    """Where a label stands beside its point: an offset in points, and which of its sides touches that."""

    offset: tuple[int, int]
    horizontal: str
    vertical: str


LABEL_PLACES = (
    LabelPlace((9, 0), "left", "center"),
    LabelPlace((9, 7), "left", "bottom"),
    LabelPlace((0, 9), "center", "bottom"),
    LabelPlace((-9, 0), "right", "center"),
    LabelPlace((-9, 7), "right", "bottom"),
    LabelPlace((9, -7), "left", "top"),
    LabelPlace((-9, -7), "right", "top"),
    LabelPlace((9, 22), "left", "bottom"),
    LabelPlace((-9, 22), "right", "bottom"),
)
"""The best first."""


class Stem(NamedTuple):
    """One model's: how many visual tokens, seconds to its first and to its last token, a label, a color."""

    tokens: int
    first: float
    last: float
    text: str
    color: str


def draw_plots(results: Results, folder: Path) -> dict[Path, str]:
    """Draw both; returns their titles by path, nothing where nothing was measured."""
    import matplotlib

    measured = [one for one in all_figures(results) if one.response is not None]
    if not measured:
        return {}
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        plots = {
            folder / RESPONSE_FILE: (RESPONSE_TITLE, _response_time(measured, results)),
            folder / STAGES_FILE: (STAGES_TITLE, _where_time_goes(measured, results)),
        }
        for path, (_, figure) in plots.items():
            figure.savefig(path, dpi=DPI)
    return {path: title for path, (title, _) in plots.items()}


def _response_time(measured: list[Figures], results: Results) -> Figure:
    """A stem for each model: a ring at its first token, a dot at its last."""
    from matplotlib.figure import Figure

    shown = [one for one in measured if one.model.varies is None] or measured
    figure = Figure(figsize=(7.6, 5.0), layout="constrained")
    axes = figure.subplots()
    stems = []
    for one in shown:
        assert one.response is not None
        assert one.first_token is not None
        assert one.model.visual_tokens is not None
        tokens, color = one.model.visual_tokens, THEIRS if one.model.kind == BASELINE else OURS
        axes.plot([tokens, tokens], [one.first_token.median, one.response.median], color=color, linewidth=2, alpha=0.5)
        axes.plot(tokens, one.first_token.median, "o", markersize=7, color=color, markerfacecolor="white", zorder=3)
        axes.plot(tokens, one.response.median, "o", markersize=9, color=color, zorder=3)
        text = f"{one.model.title}\n{tokens:,} tokens, {readable(one.response.median, 's')}"
        stems.append(Stem(tokens, one.first_token.median, one.response.median, text, color))
    _scale_tokens(axes, [stem.tokens for stem in stems])
    axes.set_ylim(0, HEADROOM * max(stem.last for stem in stems))
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"visual tokens of one {WIDTH}x{HEIGHT} picture (logarithmic)")
    axes.set_ylabel("seconds")
    axes.set_title(f"{RESPONSE_TITLE}\n○ first token   ● all {results.job['new_tokens']} tokens", loc="left")
    _label(figure, axes, stems)
    return figure


def _where_time_goes(measured: list[Figures], results: Results) -> Figure:
    """A bar for each model, its parts one after the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 1.6 + 0.42 * len(measured)), layout="constrained")
    axes = figure.subplots()
    places = list(range(len(measured)))
    left = [0.0] * len(measured)
    steps = results.job["new_tokens"] - 1
    decode = f"{steps} further tokens"
    for name, color in zip([*SHOWN_STAGES, decode], [*STAGE_COLORS, DECODE_COLOR], strict=True):
        widths = [
            steps / cast(float, one.tokens_per_second) if name == decode else one.stages[name] for one in measured
        ]
        axes.barh(places, widths, left=left, height=0.68, color=color, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, end in zip(places, left, strict=True):
        axes.annotate(
            readable(end, "s"), (end, place), (5, 0), textcoords="offset points", va="center", fontsize=LABEL_SIZE
        )
    axes.set_yticks(places, [one.model.title for one in measured])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, HEADROOM * max(left))
    axes.grid(axis="x", **GRID)
    axes.set_axisbelow(True)
    axes.set_xlabel("seconds (medians of the parts)")
    axes.set_title(STAGES_TITLE, loc="left")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=LABEL_SIZE)
    return figure


def _scale_tokens(axes: Axes, counts: list[int]) -> None:
    """A logarithmic axis around the counts, with ticks at powers of two."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    low, high = min(counts) / SIDE_ROOM[0], max(counts) * SIDE_ROOM[1]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    powers = [2**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    axes.xaxis.set_major_locator(FixedLocator(powers))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _label(figure: Figure, axes: Axes, stems: list[Stem]) -> None:
    """Write a label beside each stem's end, where it covers least of the others."""
    figure.draw_without_rendering()
    taken = [_box(axes, stem) for stem in stems]
    for stem in stems:
        labels = [_annotate(axes, stem, place) for place in LABEL_PLACES]
        boxes = [label.get_window_extent() for label in labels]
        covered = [_covered(box, taken, figure) for box in boxes]
        best = covered.index(min(covered))
        for place, label in enumerate(labels):
            if place != best:
                label.remove()
        taken.append(boxes[best])


def _annotate(axes: Axes, stem: Stem, place: LabelPlace) -> Any:
    label = axes.annotate(
        stem.text,
        (stem.tokens, stem.last),
        place.offset,
        textcoords="offset points",
        ha=place.horizontal,
        va=place.vertical,
        fontsize=LABEL_SIZE,
        color=stem.color,
    )
    label.set_in_layout(False)  # or each try would move the axes
    return label


def _box(axes: Axes, stem: Stem) -> Bbox:
    """What a stem covers, in pixels."""
    from matplotlib.transforms import Bbox

    ends = axes.transData.transform([(stem.tokens, stem.first), (stem.tokens, stem.last)])
    return Bbox([ends.min(axis=0) - DOT_PIXELS, ends.max(axis=0) + DOT_PIXELS])


def _covered(box: Bbox, taken: list[Bbox], figure: Figure) -> float:
    """How much of others a label's box covers, in square pixels; more than any box does if it leaves the figure."""
    common = [one for other in taken if (one := box.intersection(box, other)) is not None]
    inside = figure.bbox.contains(box.x0, box.y0) and figure.bbox.contains(box.x1, box.y1)
    return sum(one.width * one.height for one in common) + (0.0 if inside else figure.bbox.width * figure.bbox.height)
