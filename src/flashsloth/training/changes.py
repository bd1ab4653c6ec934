"""What a run goes on with that it did not begin with: which changes are taken, from which step, and which are refused.

In: the recipe that a run began with, the one it is given now, and how far it came. Out: a list of :class:`Change`, and
`history.json` in the run's folder, or an error that names every change that cannot be. What may change stands beside
each field of the recipe (`recipe_fields.py`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flashsloth.strict_model import Place, StrictModel, found
from flashsloth.training.recipe import Recipe, RecipeError, place_in
from flashsloth.training.recipe_fields import FREE, OnResume, RecipeModel
from flashsloth.whole_file import write_whole

logger = logging.getLogger(__name__)

HISTORY_FILE = "history.json"
STAGES_KEY = "stages"
DATA_PLACES = (("data",), ("eval_data",))
"""Of a stage: files are recorded for the whole run."""
REMEDY = "set it back, or train into another folder with --set output=..."


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

    def same_as(self, other: Change) -> bool:
        """Whether both say the same; a run that was killed before its next checkpoint says things again."""
        return {**asdict(self), "time": ""} == {**asdict(other), "time": ""}


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
    new = [change for change in changes if not any(change.same_as(other) for other in past[-len(changes) :])]
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
        elif _are_groups(one) and _are_groups(other) and _go_together(name, one, other):
            for number, pair in enumerate(zip(one, other, strict=False)):
                yield from _differences(*pair, (*place, name, number))
            for number in range(len(one), len(other)):
                yield (*place, name, number), None, other[number], FREE
        else:
            yield (*place, name), one, other, rule


def _are_groups(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, RecipeModel) for item in value)


def _go_together(name: str, before: list[Any], after: list[Any]) -> bool:
    """Whether lists are compared item by item; stages may have been added at the end."""
    return len(before) == len(after) or (name == STAGES_KEY and len(before) < len(after))


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


__all__ = [
    "HISTORY_FILE",
    "Change",
    "Reached",
    "RecipeChangedError",
    "accepted_changes",
    "as_written",
    "read_history",
    "write_history",
]
