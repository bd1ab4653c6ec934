"""The loss curve as a picture.

In: the log that transformers' Trainer keeps. Out: a PNG: training loss (and its running mean), held-out loss, and the
share of right answers where it was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.training.progress import RIGHT

SMOOTHED_SHARE = 0.05
"""Of a curve's points, how many the running mean takes together, around each."""
FEW_POINTS = 40
"""So many and fewer are drawn as they are."""
WIDTH, WIDTH_WITH_SCORES, HEIGHT = 7.0, 11.0, 4.0
"""Of the picture, in inches."""


def draw_curve(log: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw `log`, Trainer's `state.log_history`, into `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = np.array([(entry["step"], entry["loss"]) for entry in log if "loss" in entry])
    held_out = np.array([(entry["step"], entry["eval_loss"]) for entry in log if "eval_loss" in entry])
    names = sorted({key for entry in log for key in entry if key.startswith(RIGHT)})
    width = WIDTH_WITH_SCORES if names else WIDTH
    figure = Figure(figsize=(width, HEIGHT))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if names else 1, squeeze=False, gridspec_kw=_margins(width))[0]
    if len(train):
        _draw_training(axes[0], train[:, 0], train[:, 1])
    if len(held_out):
        axes[0].plot(held_out[:, 0], held_out[:, 1], "o-", color="#d1495b", markersize=3, label="held out")
    axes[0].set(xlabel="optimizer steps", ylabel="loss")
    axes[0].ticklabel_format(axis="y", scilimits=(-2, 4))  # no number wider than its margin
    axes[0].set_title(title, y=1.0)  # where it would be put after all labels had been measured
    if len(train) or len(held_out):
        axes[0].legend(frameon=False)
    for name in names:
        points = np.array([(entry["step"], entry[name]) for entry in log if name in entry])
        label = name.removeprefix(RIGHT).removeprefix("_") or "all"
        linewidth = 2.5 if label == "all" else 1.2
        axes[1].plot(points[:, 0], 100 * points[:, 1], marker=".", label=label, linewidth=linewidth, clip_on=False)
    if names:
        axes[1].set(xlabel="optimizer steps", ylabel="right on held-out pictures, %", ylim=(0, 100))
        axes[1].legend(frameon=False, fontsize=8, ncols=2)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=120, format="png")


def _margins(width: float) -> dict[str, float]:
    """Room for labels, in parts of the picture: fixed, since to measure them is to draw everything twice."""
    left, right, below, above, between = 0.75, 0.15, 0.55, 0.35, 0.25  # inches, but for the last
    return {
        "left": left / width,
        "right": 1 - right / width,
        "bottom": below / HEIGHT,
        "top": 1 - above / HEIGHT,
        "wspace": between,
    }


def _draw_training(axes: Any, steps: np.ndarray, losses: np.ndarray) -> None:
    """The losses that were logged; many of them thinly, with their running mean."""
    if len(losses) <= FEW_POINTS:
        axes.plot(steps, losses, color="#1f4e9c", marker=".", label="training")
        return
    axes.plot(steps, losses, color="#b7c9e2", linewidth=0.8, label="training")
    axes.plot(steps, running_mean(losses), color="#1f4e9c", label="training, running mean")


def running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the values around each, of fewer at the ends; [n] -> [n]."""
    reach = max(1, round(len(values) * SMOOTHED_SHARE / 2))
    places = np.arange(len(values))
    reach_here = np.minimum(reach, np.minimum(places, places[::-1]))  # as many on both sides, so that ends do not lean
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[places + reach_here + 1] - sums[places - reach_here]) / (2 * reach_here + 1)


__all__ = ["draw_curve", "running_mean"]
