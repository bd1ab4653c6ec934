"""The table of an experiment, in Markdown, and where it is put.

In: rows. Out: `claim.md`, in which the table stands between two marks; what people wrote around them stays.
"""

from __future__ import annotations

from pathlib import Path

from flashsloth.experiment.results import ALL, Row, Spread
from flashsloth.experiment.variants import Experiment
from flashsloth.whole_file import write_whole
from flashsloth.world import KINDS

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
GIGA = 1e9
PERCENT = 100
PLUS_MINUS = "±"


def write_report(experiment: Experiment, rows: list[Row], folder: Path) -> Path:
    """Write the table and the plots of an experiment into a folder.

    Raises:
        ValueError: if the file is there without the marks.
    """
    from flashsloth.experiment.plots import draw_plots

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
    lines = [_line(titles), _line(["---"] + ["---:"] * (len(titles) - 1))]
    lines += [_line(_cells(row, kinds)) for row in rows]
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
    return "\n".join(lines) + f"\n\n{note}{unfinished}"


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


def share_text(share: Spread | None) -> str:
    """Such as `93.1 ± 0.4`."""
    if share is None:
        return "–"
    deviation = "" if share.deviation is None else f" {PLUS_MINUS} {PERCENT * share.deviation:.1f}"
    return f"{PERCENT * share.mean:.1f}{deviation}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


__all__ = ["table", "write_report"]
