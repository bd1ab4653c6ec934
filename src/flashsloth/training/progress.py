"""How far a run is, for whoever watches it.

In: a log line of the trainer. Out: a :class:`Progress`, with a text of one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RIGHT = "eval_right"
"""What a log calls the share of right answers; each kind's with an underscore and its name behind it."""
_MINUTE, _HOUR = 60, 3600
_THOUSAND = 1e3


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
        numbers = self.numbers
        parts = [f"loss {numbers['loss']:.4f}"] if "loss" in numbers else []
        if "learning_rate" in numbers:
            parts.append(f"lr {numbers['learning_rate']:.2e}")
        if "grad_norm" in numbers:
            parts.append(f"gradient {numbers['grad_norm']:.3g}")
        if "samples_per_second" in numbers:
            parts.append(f"{numbers['samples_per_second']:.3g} samples/s")
        if numbers.get("tokens_per_second"):
            parts.append(f"{numbers['tokens_per_second'] / _THOUSAND:.3g}k tokens/s")
        if "mfu" in numbers:
            parts.append(f"MFU {numbers['mfu']:.1%}")
        if "waiting_for_data" in numbers:
            parts.append(f"{numbers['waiting_for_data']:.0%} waiting for data")
        if "peak_memory_gb" in numbers:
            parts.append(f"{numbers['peak_memory_gb']:.2f} GB at most")
        if numbers.get("bad_samples"):
            parts.append(f"{numbers['bad_samples']:,} bad samples left out")
        return " · ".join(parts)


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


__all__ = ["Progress", "Watcher", "duration"]
