"""What a run says of itself while it trains: a line, a curve, TensorBoard, Weights & Biases.

In: log lines of the trainer, a recipe's `report_to`, and the stage's folder. Out: a :class:`Progress`, with a text of
one line; transformers' own callbacks, which write into the stage's folder (in TensorBoard, what a killed run wrote
after its last checkpoint is hidden when it goes on); a PNG of training loss, its running mean, held-out loss, and the
share of right answers where it was measured.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.training import distributed
from flashsloth.training.recipe import RecipeError

RIGHT = "eval_right"
"""What a log calls the share of right answers; each kind's with an underscore and its name behind it."""
_MINUTE, _HOUR = 60, 3600
_THOUSAND = 1e3
_DETAILS = {
    "loss": "loss {:.4f}",
    "learning_rate": "lr {:.2e}",
    "grad_norm": "gradient {:.3g}",
    "samples_per_second": "{:.3g} samples/s",
    "tokens_per_second": "{:.3g}k tokens/s",
    "mfu": "MFU {:.1%}",
    "waiting_for_data": "{:.0%} waiting for data",
    "peak_memory_gb": "{:.2f} GB at most",
    "bad_samples": "{:,} bad samples left out",
}
_IF_ANY = ("tokens_per_second", "bad_samples")
"""What goes without saying where it is 0."""
TENSORBOARD, WANDB = "tensorboard", "wandb"
TENSORBOARD_FOLDER = "tensorboard"
PROJECT = "flashsloth"
"""Where Weights & Biases puts a run, unless WANDB_PROJECT says otherwise."""
_INSTALL = {TENSORBOARD: "pip install 'flashsloth[tensorboard]'", WANDB: "pip install wandb"}
SMOOTHED_SHARE = 0.05
"""Of a curve's points, how many the running mean takes together, around each."""
FEW_POINTS = 40
"""So many and fewer are drawn as they are."""
WIDTH, WIDTH_WITH_SCORES, HEIGHT = 7.0, 11.0, 4.0
"""Of the picture, in inches."""


@dataclass(frozen=True)
class Progress:
    """Where a stage is.

    Attributes:
        stage: its folder's name.
        step: optimizer steps that are done.
        steps: that there will be.
        numbers: of the last log line: `loss`, `learning_rate`, `samples_per_second`, ...
    """

    stage: str
    step: int
    steps: int
    numbers: dict[str, float]

    @property
    def seconds_left(self) -> float | None:
        """At the speed of the last log line; evaluations and checkpoints come on top."""
        pace = self.numbers.get("seconds_per_step")
        return None if pace is None else pace * (self.steps - self.step)

    def line(self) -> str:
        """All of it."""
        share = self.step / self.steps if self.steps else 1.0
        left = "" if self.seconds_left is None else f" · {duration(self.seconds_left)} left"
        return f"{self.stage} {self.step}/{self.steps} {share:.0%} · {self.details()}{left}"

    def held_out(self) -> str:
        """What an evaluation found."""
        numbers = self.numbers
        found = {name.removeprefix(RIGHT): share for name, share in numbers.items() if name.startswith(RIGHT)}
        shown = {"": found[""]} if "" in found else found  # the share of all answers, where it is known
        shares = [f"{share:.1%}{name.replace('_', ' ')} right" for name, share in shown.items()]
        return f"{self.stage} {self.step}/{self.steps} · held out: " + " · ".join(
            [f"loss {numbers['eval_loss']:.4f}", *shares]
        )

    def details(self) -> str:
        """Loss, speed and memory."""
        shown = {name: self.numbers[name] for name in _DETAILS if name in self.numbers}
        if "tokens_per_second" in shown:
            shown["tokens_per_second"] /= _THOUSAND
        return " · ".join(
            _DETAILS[name].format(number) for name, number in shown.items() if number or name not in _IF_ANY
        )


Watcher = Callable[[Progress], None]
"""Called on the first process at every log line."""


def duration(seconds: float) -> str:
    """Such as `3 h 12 min`, `4 min 20 s` or `18 s`."""
    whole = round(seconds)
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole} s"


def check_installed(names: Sequence[str]) -> None:
    """Refuse what is asked for and not there.

    Raises:
        RecipeError: naming it.
    """
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(f"report_to asks for {name}, which is not installed: {_INSTALL[name]}")


@contextmanager
def reporters(names: Sequence[str], folder: Path, run_name: str, step: int) -> Iterator[list[Any]]:
    """Callbacks for Trainer, as long as a stage runs.

    Args:
        names: a recipe's `report_to`.
        folder: the stage's.
        run_name: what Weights & Biases shows.
        step: the last one that the log already has.
    """
    check_installed(names)
    made: list[Any] = []
    if TENSORBOARD in names and distributed.is_first():
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        made.append(TensorBoardCallback(SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)))
    with ExitStack() as stack:
        if WANDB in names:
            from transformers.integrations import WandbCallback

            stack.enter_context(_wandb_run(folder, run_name))
            made.append(WandbCallback())  # takes that run
        yield made


@contextmanager
def _wandb_run(folder: Path, run_name: str) -> Iterator[None]:
    """A run of Weights & Biases for a stage: the same one again when the stage goes on, another for the next stage."""
    if not distributed.is_first():
        yield
        return
    import wandb

    id_file = folder / WANDB / "id"
    id_file.parent.mkdir(parents=True, exist_ok=True)
    if not id_file.is_file():
        id_file.write_text(secrets.token_hex(4), encoding="utf-8")
    number = id_file.read_text(encoding="utf-8").strip()
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    wandb.init(project=project, name=run_name, id=number, resume="allow", dir=folder)
    try:
        yield
    finally:
        wandb.finish()


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
