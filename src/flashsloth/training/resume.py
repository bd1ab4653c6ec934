"""Going on from a checkpoint, exact where Trainer is not; and what may change when a run goes on.

In: Trainer's models, and what it found in a checkpoint; the recipe that a run began with, the one it is given now, and
how far it came. Out: weights under the names they were saved under, or an error where they, or the shares they lie in,
do not fit; a list of :class:`Change`, and `history.json` in the run's folder, or an error that names every change that
cannot be. What may change stands beside each field of the recipe.

A run that goes on has to draw what the run that was not stopped drew. What the model draws (dropout) is saved and comes
back; what preparing data and evaluating draw depends on how often loaders were made, so it is kept apart.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flashsloth.files import write_whole
from flashsloth.training import distributed as ranks
from flashsloth.training.checkpoints import SaveError
from flashsloth.training.recipe import Recipe, RecipeError, place_in
from flashsloth.training.recipe_fields import DDP, FREE, FSDP2, Engine, OnResume, RecipeModel
from flashsloth.yaml_file import Place, StrictModel, found

logger = logging.getLogger(__name__)

NAMES_SHOWN = 4
"""Tensors that an error names."""
HISTORY_FILE = "history.json"
STAGES_KEY = "stages"
DATA_PLACES = (("data",), ("eval_data",))
"""Of a stage: files are recorded for the whole run."""
REMEDY = "set it back, or train into another folder with --set output=..."


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
        optimizer, scheduler: loaded; a `LambdaLR` of torch, or what accelerate makes of one.
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
def parameter_names(model: Any) -> Iterator[None]:
    """Have a model saved under the names that its parameters have, not under those of the files it came from."""
    before = getattr(model, "_weight_conversions", None)
    model._weight_conversions = []
    try:
        yield
    finally:
        model._weight_conversions = before


def check_fits(model: Any, load_result: Any, checkpoint: Path | None) -> None:
    """Refuse a checkpoint whose tensors, by `load_state_dict`, are not the model's: Trainer would train on.

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


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn on the processor in here was not drawn afterwards."""
    python, numpy, ours = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(ours)


class RecipeChangedError(RecipeError):
    """The recipe or the data are not what the run began with."""


@dataclass(frozen=True)
class Reached:
    """How far a run came.

    Attributes:
        stage: number of the stage that it goes on in; as many as there are where all are done.
        step: the last optimizer step of it that is kept.
        folder: name of the stage's folder.
    """

    stage: int
    step: int
    folder: str


@dataclass(frozen=True)
class Change:
    """A value that is another one from a step on.

    Attributes:
        time: when the run went on with it, as ISO 8601.
        stage: folder of the stage that the run went on in.
        step: of that stage; the value holds from the next one.
        field: its place in the recipe.
        before, after: its values.
    """

    time: str
    stage: str
    step: int
    field: str
    before: Any
    after: Any


def accepted_changes(began: Recipe, now: Recipe, reached: Reached, time: str) -> list[Change]:
    """The changes that a run goes on with.

    Raises:
        RecipeChangedError: naming all that it cannot go on with: the field, its values, and why.
    """
    taken, refused = [], []
    names = [{"stage": stage.stage} for stage in now.stages]
    for place, before, after, rule in _differences(began, now):
        field = place_in(names, place)
        why = _refusal(place, after, rule, reached)
        if why is None:
            taken.append(Change(time, reached.folder, reached.step, field, _plain(before), _plain(after)))
        else:
            refused.append(f"{field}: the run has {found(_plain(before))}, found {found(_plain(after))}: {why}")
    if len(refused) == 1:
        raise RecipeChangedError(f"{now.output} cannot go on with {refused[0]}; {REMEDY}")
    if refused:
        lines = [f"{now.output} cannot go on with {len(refused)} changes; {REMEDY}:", *(f"  {one}" for one in refused)]
        raise RecipeChangedError("\n".join(lines))
    return taken


@contextmanager
def as_written(file: Path) -> Iterator[None]:
    """Read what a run wrote down of itself.

    Raises:
        RecipeChangedError: in place of what comes of a file that somebody else wrote into, or that is damaged.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeChangedError(
            f"{file} is not what a run wrote ({type(error).__name__}: {' '.join(str(error).split())}): put it back, or "
            f"remove it, and --resume goes on without what it says"
        ) from error


def read_history(folder: Path) -> list[Change]:
    """What a run went on with so far."""
    file = folder / HISTORY_FILE
    with as_written(file):
        return [Change(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []


def write_history(folder: Path, changes: list[Change]) -> None:
    """Add to it what is not there yet, and say what changed."""
    past = read_history(folder)
    # a run that was killed before its next checkpoint says things again, at another time
    last = [replace(other, time="") for other in past[-len(changes) :]]
    new = [change for change in changes if replace(change, time="") not in last]
    if new or not past:
        write_whole(folder / HISTORY_FILE, json.dumps([asdict(change) for change in (*past, *new)], indent=1) + "\n")
    for change in changes:
        logger.info(
            "%s: was %s, is %s from step %d of %s",
            change.field,
            found(change.before),
            found(change.after),
            change.step + 1,
            change.stage,
        )


def _differences(
    before: RecipeModel, after: RecipeModel, place: Place = ()
) -> Iterator[tuple[Place, Any, Any, OnResume]]:
    """Fields that differ, as deep as both have them."""
    for name in type(after).model_fields:
        one, other = getattr(before, name), getattr(after, name)
        rule = type(after).on_resume(name)
        assert rule is not None
        if one == other:
            continue
        if isinstance(one, RecipeModel) and isinstance(other, RecipeModel):
            yield from _differences(one, other, (*place, name))
        elif (
            _are_groups(one)
            and _are_groups(other)
            and (len(one) == len(other) or (name == STAGES_KEY and len(one) < len(other)))
        ):  # item by item; stages may have been added at the end
            for number, pair in enumerate(zip(one, other, strict=False)):
                yield from _differences(*pair, (*place, name, number))
            for number in range(len(one), len(other)):
                yield (*place, name, number), None, other[number], FREE
        else:
            yield (*place, name), one, other, rule


def _are_groups(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, RecipeModel) for item in value)


def _refusal(place: Place, after: Any, rule: OnResume, reached: Reached) -> str | None:
    """Why a change cannot be; None if it can."""
    stage = int(place[1]) if place[0] == STAGES_KEY and len(place) > 1 else None
    if stage is not None and stage > reached.stage and place[2:3] not in DATA_PLACES:
        return None  # it has not begun
    if rule.kind == "fixed":
        return rule.why
    if rule.kind == "free" or stage is None:
        return None
    if stage < reached.stage:
        return "that stage is done; a run that starts from its folder (model.path) can take it further"
    if stage == reached.stage and place[2] == "steps" and after is not None and after < reached.step:
        return f"{reached.step} steps are done already"
    return None


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, StrictModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
