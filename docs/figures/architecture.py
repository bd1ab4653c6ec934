"""Draw docs/figures/architecture.png: what FlashSloth does with a picture and a question, and why it is fast.

    python docs/figures/architecture.py

Token counts are the published model's (81 of 729 patches) and, for the others, those of a 640x480 picture as
docs/architecture.md derives them.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK, SOFT, DETAIL = "#22313f", "#7f8c8d", "#b9770e"
IMAGE, TOKEN, TEXT, QUERY, LLM = "#f6d8ae", "#f2994a", "#cfe3f5", "#7b5ea7", "#e8ecef"
TOKENS = (
    ("FlashSloth", 81, TOKEN),
    ("FlashSloth-HD", 405, TOKEN),
    ("Qwen2-VL-2B", 391, "#b8c4cc"),
    ("InternVL2-2B", 1792, "#b8c4cc"),
)


def box(axes, x: float, y: float, width: float, height: float, text: str, color: str, size: float = 9) -> None:
    shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.1", fc=color, ec=INK, lw=1)
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, color=INK)


def arrow(axes, start: tuple[float, float], end: tuple[float, float], color: str = INK, bend: float = 0.0) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=11, color=color, lw=1.3, connectionstyle=f"arc3,rad={bend}"
        )
    )


def tokens(axes, x: float, y: float, count: int, color: str, width: float = 0.13) -> float:
    for index in range(count):
        axes.add_patch(Rectangle((x + index * (width + 0.04), y), width, 0.34, fc=color, ec=INK, lw=0.6))
    return x + count * (width + 0.04)


def draw_model(axes) -> None:
    axes.set(xlim=(0, 12.2), ylim=(0, 5.6))
    axes.axis("off")
    for row in range(9):
        for column in range(9):
            shade = IMAGE if (row // 3 + column // 3) % 2 else "#fbeed9"
            axes.add_patch(Rectangle((0.2 + column * 0.16, 3.5 + row * 0.16), 0.16, 0.16, fc=shade, ec="white", lw=0.5))
    axes.text(0.92, 5.12, "picture, 729 patches", ha="center", fontsize=9, color=INK)
    box(axes, 2.15, 3.75, 1.25, 0.9, "vision\nencoder", LLM)
    arrow(axes, (1.68, 4.2), (2.13, 4.2))
    box(axes, 4.3, 3.75, 1.5, 0.9, "Spatial\nAttention Pooling", IMAGE)
    arrow(axes, (3.42, 4.2), (4.28, 4.2))
    axes.text(3.85, 4.32, "F", ha="center", fontsize=10, style="italic", color=INK)
    box(axes, 6.2, 3.75, 1.1, 0.9, "projector", LLM)
    arrow(axes, (5.82, 4.2), (6.18, 4.2))
    axes.plot([6.75, 6.75, 2.8], [3.73, 3.3, 3.3], color=INK, lw=1.3)
    arrow(axes, (2.8, 3.32), (2.8, 2.9))
    axes.text(4.8, 3.38, "81 visual tokens", fontsize=9, color=INK, ha="center")

    x = tokens(axes, 0.4, 2.5, 8, "#ffffff")
    axes.text(0.4, 2.22, "USER:", fontsize=8, color=SOFT)
    start = x
    x = tokens(axes, x, 2.5, 12, TOKEN)
    axes.text(start, 2.22, "visual tokens", fontsize=8, color=SOFT)
    start = x
    x = tokens(axes, x, 2.5, 10, TEXT)
    question = (start + x) / 2
    axes.text(start, 2.22, "the question", fontsize=8, color=SOFT)
    start = x
    x = tokens(axes, x, 2.5, 9, QUERY)
    queries = (start + x) / 2
    axes.text(start, 2.22, "9 query tokens", fontsize=8, color=SOFT)
    x = tokens(axes, x, 2.5, 4, "#ffffff")
    axes.text(x - 0.85, 2.22, "ASSISTANT:", fontsize=8, color=SOFT)

    box(axes, 0.3, 1.45, 8.3, 0.6, "language model, layers 1-7", LLM)
    box(axes, 0.3, 0.05, 8.3, 0.6, "language model, layers 8-32", LLM)
    box(axes, 9.3, 0.75, 2.7, 0.85, "Embedded Query:\nread the question, then all of F", "#d9cdea", size=8.5)
    axes.plot([question, question], [1.45, 1.25], color=QUERY, lw=1.3)
    axes.plot([queries, queries], [1.45, 1.25], color=QUERY, lw=1.3)
    axes.plot([question, 9.2], [1.25, 1.25], color=QUERY, lw=1.3)
    arrow(axes, (9.1, 1.25), (9.3, 1.25), QUERY)
    axes.plot([9.28, queries], [0.95, 0.95], color=QUERY, lw=1.3)
    arrow(axes, (queries, 0.97), (queries, 0.65), QUERY)
    axes.plot([3.85, 3.85, 10.6], [4.55, 5.2, 5.2], color=DETAIL, lw=1.3)
    arrow(axes, (10.6, 5.22), (10.6, 1.62), DETAIL)
    axes.text(7.2, 5.28, "all 729 rows of F: what pooling threw away comes back", fontsize=9, color=DETAIL, ha="center")
    arrow(axes, (8.62, 0.35), (9.2, 0.35))
    axes.text(9.3, 0.35, "answer", fontsize=10, color=INK, va="center")


def draw_counts(axes) -> None:
    names = [name for name, _, _ in TOKENS][::-1]
    counts = [count for _, count, _ in TOKENS][::-1]
    bars = axes.barh(names, counts, color=[color for _, _, color in TOKENS][::-1], height=0.6)
    axes.bar_label(bars, padding=4, color=INK)
    axes.set_title("visual tokens to read\nfor a 640x480 picture", fontsize=10, color=INK)
    axes.set_xlim(0, 2200)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xticks([])
    axes.tick_params(left=False, labelcolor=INK)


def main() -> None:
    figure = Figure(figsize=(14.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3.1, 1))
    draw_model(left)
    draw_counts(right)
    figure.savefig(Path(__file__).with_name("architecture.png"), dpi=110)


if __name__ == "__main__":
    main()
