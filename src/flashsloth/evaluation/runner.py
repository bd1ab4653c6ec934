"""Runs a benchmark: asks a model what is not answered yet, and writes every answer down as it comes.

In: a task's items, and who answers. Out: answers in a :class:`RunFolder`, and an :class:`Outcome` that says what could
not be answered. Scores are made afterwards, of the file. Several processes divide the work by pictures, without a word
between them.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flashsloth.evaluation.answerer import Answerer
from flashsloth.evaluation.item import Item, Prediction
from flashsloth.evaluation.predictions import DATA, data_digest
from flashsloth.evaluation.run_folder import EVERYTHING, Part, RunFolder
from flashsloth.evaluation.settings import TaskSettings
from flashsloth.evaluation.task import EvaluationError, Task
from flashsloth.version import __version__, installed_versions

TIMED_SECONDS = 10.0
"""After which the time is written down again: what a killed process has not written is lost."""
MOST_ALIKE = 16
"""Failures in a row, all for one reason, after which nothing more is asked."""
FIGURES = ("paper", "paper_hd", "title", "size", "groups", "ids", "not_known", "lmms_metrics")
"""Of a task's settings, what answers do not hang on."""


@dataclass
class Outcome:
    """What became of a process's part.

    Attributes:
        asked: questions of the whole run.
        part: questions of this part.
        failures: id -> why there is no answer.
        gave_up: whether the rest was not asked, since all failed for one reason.
        merged: whether this process has made one file of all parts.
        is_whole: whether that file is there.
        seconds: that an answer took; None where nobody knows.
        answered: all answers that are there.
    """

    asked: int
    part: int
    failures: dict[str, Exception] = field(default_factory=dict)
    gave_up: bool = False
    merged: bool = False
    is_whole: bool = False
    seconds: float | None = None
    answered: list[Prediction] = field(default_factory=list)


def read_items(task: Task, folder: Path, limit: int | None, seed: int) -> list[Item]:
    """What is asked: all items of a folder, or at least `limit` of them, in whole groups that the seed draws.

    Raises:
        EvaluationError: for data that cannot be read, an id that is there twice, or a limit below one.
    """
    if limit is not None and limit < 1:
        raise EvaluationError(f"--limit is {limit}; expected at least 1")
    items = list(task.read(folder))
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise EvaluationError(f"{folder} has {item.id!r} twice, expected every question once")
        seen.add(item.id)
    if not items:
        raise EvaluationError(f"{folder} has files of {task.settings.title}, but no question in them")
    return items if limit is None else _drawn(items, limit, seed)


def _drawn(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    groups: dict[str, int] = defaultdict(int)
    for item in items:
        groups[item.group] += 1
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    chosen: set[str] = set()
    count = 0
    for name in names:
        if count >= limit:
            break
        chosen.add(name)
        count += groups[name]
    return [item for item in items if item.group in chosen]


def share_of(items: Sequence[Item], part: Part) -> list[tuple[int, Item]]:
    """(place, item) of what a part does: each picture's items go to one part, pictures in turn."""
    numbers = {picture: number for number, picture in enumerate(dict.fromkeys(item.picture for item in items))}
    return [(place, item) for place, item in enumerate(items) if numbers[item.picture] % part.total == part.number - 1]


def header_of(
    settings: TaskSettings, answerer: Answerer, items: Sequence[Item], limit: int | None, seed: int
) -> dict[str, Any]:
    """The header of predictions: all that answers hang on."""
    return {
        "task": settings.task,
        "preset": settings.preset,
        "settings": {name: value for name, value in asdict(settings).items() if name not in FIGURES},
        "model": answerer.describe(),
        DATA: {"items": len(items), "digest": data_digest(items)},
        "limit": limit,
        "seed": seed,
        "versions": {"flashsloth": __version__, **installed_versions(answerer.packages)},
    }


def run(
    settings: TaskSettings,
    items: Sequence[Item],
    answerer: Answerer,
    folder: Path,
    *,
    part: Part = EVERYTHING,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Outcome:
    """Ask what a folder has no answer to.

    Args:
        settings: how it is asked.
        items: of the whole run.
        answerer: who answers.
        folder: where answers are kept, and those that are there already count.
        part: of the run, that this process does.
        limit, seed: that items were drawn with; draws of answers have the same seed.
        progress: called with how many of this call's questions are done, and how many there are.

    Raises:
        EvaluationError: where the folder is of another run, or in use.
    """
    header = header_of(settings, answerer, items, limit, seed)
    mine = share_of(items, part)
    outcome = Outcome(len(items), len(mine))
    with RunFolder(folder, header, part) as kept:
        todo = [(place, item) for place, item in mine if item.id not in kept.answered]
        if todo:
            _ask(todo, settings, answerer, seed, kept, outcome, progress)
        outcome.merged = kept.merge()
        outcome.is_whole = outcome.merged or len(kept.answered) == len(items)
        outcome.seconds = kept.seconds()
        outcome.answered = sorted(kept.answered.values(), key=lambda one: one.place)
    return outcome


def _ask(
    todo: Sequence[tuple[int, Item]],
    settings: TaskSettings,
    answerer: Answerer,
    seed: int,
    kept: RunFolder,
    outcome: Outcome,
    progress: Callable[[int, int], object] | None,
) -> None:
    since, timed, alike, reason = time.monotonic(), 0, 0, ""
    answers = answerer.answers([item for _, item in todo], settings, seed)
    try:
        for done, (number, reply) in enumerate(answers, 1):
            place, item = todo[number]
            if isinstance(reply, Exception):
                outcome.failures[item.id] = reply
                alike, reason = alike + 1 if str(reply) == reason else 1, str(reply)
                if alike == MOST_ALIKE:
                    outcome.gave_up = True
                    return
            else:
                alike = 0
                made = reply.text, reply.tokens, reply.finish_reason
                asked = item.id, item.prompt, item.truth, item.group, item.picture
                kept.add(Prediction(*asked, *made, place=place))
                timed += 1
            if progress is not None:
                progress(done, len(todo))
            if (seconds := time.monotonic() - since) > TIMED_SECONDS:
                kept.add_timing(timed, seconds)
                since, timed = time.monotonic(), 0
    finally:
        answers.close()
        if timed:
            kept.add_timing(timed, time.monotonic() - since)


def whole_groups(items: Sequence[Item], answered: Sequence[Prediction]) -> list[Prediction]:
    """Of the answers that are there, those of groups that have all of theirs."""
    there = {one.id for one in answered}
    cut = {item.group for item in items if item.id not in there}
    return [one for one in answered if one.group not in cut]
