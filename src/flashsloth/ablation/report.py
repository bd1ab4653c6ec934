"""What the runs of an experiment found: a table in Markdown, and plots of right answers.

In: an experiment whose runs are done, or some of them. Out: a :class:`Row` for each variant, with its spread over the
seeds; `claim.md`, in which the table stands between two marks and what people wrote around them stays; PNG files.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsloth.ablation.variants import SAP, Experiment, Variant
from flashsloth.benchmark.report import markdown_table
from flashsloth.files import write_whole
from flashsloth.world import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESULT_FILE, COSTS_FILE = "result.json", "costs.json"
ALL = "all"
SETTINGS = ("num_query_tokens", "embq_layer")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
GIGA = 1e9
PERCENT = 100
PLUS_MINUS = "±"
DPI = 150
WITH, WITHOUT = "#009e73", "#56606b"
"""With EmbQ and without."""
GRID: dict[str, Any] = {"color": "#d8dce0", "linewidth": 0.8}
ROW_HEIGHT, LEAST_HEIGHT, WIDTH = 0.34, 2.6, 8.0
"""Inches."""
DEFAULT_POOL = 3
COLORMAP = "viridis"


@dataclass(frozen=True)
class SeedSpread:
    """A number over the seeds: its mean and the standard deviation of a sample; one seed has none."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Row:
    """A variant.

    Attributes:
        variant: which.
        seeds: how many of its runs are done.
        shares: right answers of each kind of question, and of all.
        settings: `num_query_tokens` and `embq_layer` of its model.
        cost: a stored `VariantCost`; empty where it was not measured.
        memory_gb: the most that training held on its device; None where that is not known.
    """

    variant: Variant
    seeds: int
    shares: dict[str, SeedSpread]
    settings: dict[str, int]
    cost: dict[str, Any]
    memory_gb: SeedSpread | None


def read_rows(experiment: Experiment) -> list[Row]:
    """A row for each variant that has a finished run, in the file's order."""
    costs = _read(experiment.output / COSTS_FILE)
    rows = []
    for variant in experiment.variants:
        found = [_read(experiment.run_folder(variant, seed) / RESULT_FILE) for seed in experiment.seeds]
        done = [result for result in found if result]
        if not done:
            continue
        kinds = dict.fromkeys(kind for result in done for kind in result["shares"])
        shares = {kind: SeedSpread(tuple(result["shares"][kind] for result in done)) for kind in kinds}
        memory = tuple(result["memory_gb"] for result in done if result["memory_gb"] is not None)
        config = variant.config(experiment.model["config"])
        settings = {name: config[name] for name in SETTINGS if name in config}
        cost = costs.get(variant.name, {})
        rows.append(Row(variant, len(done), shares, settings, cost, SeedSpread(memory) if memory else None))
    return rows


def write_json(path: Path, tree: Any) -> None:
    """A file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(tree, indent=1))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


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


def write_report(experiment: Experiment, rows: list[Row], folder: Path) -> Path:
    """Write the table and the plots of an experiment into a folder.

    Raises:
        ValueError: if the file is there without the marks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{experiment.name}.md"
    old = file.read_text(encoding="utf-8") if file.is_file() else f"# {experiment.name}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file} lacks the marks {BEGIN} and {END}: put them where the table is to stand")
    plots = draw_plots(rows, folder, experiment.name)
    pictures = "\n".join(f"![{title}]({path.name})" for title, path in plots)
    write_whole(file, f"{before}{BEGIN}\n\n{table(experiment, rows)}\n\n{pictures}\n\n{END}{after}")
    return file


def table(experiment: Experiment, rows: list[Row]) -> str:
    """A row for each variant: what it costs and what it gets right."""
    kinds = [kind for kind in KINDS if any(kind in row.shares for row in rows)]
    titles = ["variant", "visual tokens", "queries", "before layer", "GFLOPs", "ms", "training GB", "all", *kinds]
    seeds = len(experiment.seeds)
    where = sorted({str(row.cost["device"]) for row in rows if row.cost})
    note = (
        f"Right answers in percent, mean {PLUS_MINUS} standard deviation over {seeds} seeds; an answer is right that "
        f"greedy decoding would give token for token. GFLOPs and time: picture, prompt and first token, one "
        f"question at a time, on {' and '.join(where) or 'no device yet'}. Training GB: the most that training held on "
        f"its device."
    )
    missing = sum(seeds - row.seeds for row in rows) + seeds * (len(experiment.variants) - len(rows))
    unfinished = f"\n\n**{missing} runs are not done yet.**" if missing else ""
    return f"{markdown_table(titles, [_cells(row, kinds) for row in rows])}\n\n{note}{unfinished}"


def _cells(row: Row, kinds: list[str]) -> list[str]:
    variant, cost = row.variant, row.cost
    layer = str(row.settings.get("embq_layer", "–")) if variant.embq else "–"
    counted = ["–"] * 3
    if cost:
        counted = [str(cost["visual_tokens"]), f"{cost['flops'] / GIGA:.2f}", f"{cost['milliseconds']:.1f}"]
    memory = "–" if row.memory_gb is None else f"{row.memory_gb.mean:.2f}"
    shares = [share_text(row.shares.get(kind)) for kind in (ALL, *kinds)]
    queries = str(row.settings.get("num_query_tokens", "–"))
    return [variant.name, counted[0], queries, layer, counted[1], counted[2], memory, *shares]


def share_text(share: SeedSpread | None) -> str:
    """Such as `93.1 ± 0.4`."""
    if share is None:
        return "–"
    deviation = "" if share.deviation is None else f" {PLUS_MINUS} {PERCENT * share.deviation:.1f}"
    return f"{PERCENT * share.mean:.1f}{deviation}"
