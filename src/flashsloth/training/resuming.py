"""Where Trainer's way of going on is not exact, what makes it so.

In: Trainer's models and what it found in a checkpoint. Out: weights that are found again under the names they were
saved under, and an error where they, or the shares they lie in, do not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashsloth.training import ranks
from flashsloth.training.checkpoints import SaveError
from flashsloth.training.engine_settings import DDP, FSDP2, Engine

NAMES_SHOWN = 4
"""Tensors that an error names."""


@dataclass(frozen=True)
class Shares:
    """How a checkpoint lies on disk.

    Attributes:
        engine: that divided it; `ddp` for one that is whole.
        processes: how many wrote it.
    """

    engine: str
    processes: int

    @classmethod
    def of_this_run(cls, engine: Engine) -> Shares:
        """Those that a stage writes now."""
        return cls(DDP if ranks.count() == 1 else engine.kind, ranks.count())

    def check(self, now: Shares, checkpoint: Path) -> None:
        """Refuse what this run's processes could not read; DeepSpeed would begin with an empty optimizer.

        Raises:
            SaveError: saying how many processes can.
        """
        free = self.engine in (DDP, FSDP2)  # torch's distributed checkpoints are read by any number that shards
        if self.engine == now.engine and (free or self.processes == now.processes):
            return
        readers = "2 or more" if self.engine == FSDP2 else str(self.processes)
        raise SaveError(
            f"{checkpoint} was written by {self._words()}, and {now._words()} cannot go on from it: start {readers}, "
            f"or a new run with --set output=..."
        )

    def _words(self) -> str:
        return "one process alone" if self.processes == 1 else f"{self.processes} processes under {self.engine}"


def settings_of(optimizer: Any) -> list[dict[str, Any]]:
    """What an optimizer's groups of parameters are told: learning rate, weight decay and the like."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def take_recipes_settings(optimizer: Any, scheduler: Any, settings: list[dict[str, Any]]) -> None:
    """After a checkpoint was loaded, which brings its own, let the recipe's settings hold.

    The learning rate is the one that a run with this recipe has at this step: where nothing changed, to the last bit
    the checkpoint's.

    Args:
        optimizer: loaded.
        scheduler: loaded; a `LambdaLR` of torch, or what accelerate makes of one.
        settings: from :func:`settings_of`, before the scheduler was made.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)
    rates = []
    for group, said, factor in zip(optimizer.param_groups, settings, schedule.lr_lambdas, strict=True):
        rates.append(said["lr"] * factor(schedule.last_epoch))
        group.update({**said, "initial_lr": said["lr"], "lr": rates[-1]})
    schedule.base_lrs = [said["lr"] for said in settings]
    schedule._last_lr = rates


@contextmanager
def own_names(model: Any) -> Iterator[None]:
    """Have a model saved under the names that its parameters have, not under those of the files it came from."""
    before = getattr(model, "_weight_conversions", None)
    model._weight_conversions = []
    try:
        yield
    finally:
        model._weight_conversions = before


def check_fits(model: Any, load_result: Any, checkpoint: Path | None) -> None:
    """Refuse a checkpoint whose tensors are not the model's; Trainer would say so and train on.

    Args:
        model: that was loaded into.
        load_result: what `load_state_dict` returned.
        checkpoint: where from.

    Raises:
        SaveError: naming some tensors.
    """
    tensors = model.state_dict(keep_vars=True)
    missing = set(load_result.missing_keys)
    loaded = {tensor.data_ptr() for name, tensor in tensors.items() if name not in missing}
    absent = sorted(name for name in missing if tensors[name].data_ptr() not in loaded)  # tied ones are stored once
    if absent or load_result.unexpected_keys:
        raise SaveError(
            f"{checkpoint} does not fit the model: it lacks {absent[:NAMES_SHOWN]}, and the model has no "
            f"{sorted(load_result.unexpected_keys)[:NAMES_SHOWN]}; resume with the version it was made with"
        )


__all__ = ["Shares", "check_fits", "own_names", "settings_of", "take_recipes_settings"]
