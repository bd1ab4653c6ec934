"""The paper's benchmarks, one file each: how its files are read, what is asked, what is right, what the score is."""

from __future__ import annotations

from flashsloth.evaluation.settings import PAPER, SettingsError, settings_of
from flashsloth.evaluation.task import Task
from flashsloth.evaluation.tasks.pope import Pope

CLASSES: dict[str, type[Task]] = {
    "pope": Pope,
}


def make_task(name: str, preset: str = PAPER) -> Task:
    """A benchmark by its name.

    Raises:
        SettingsError: where there is none, or not in this preset.
    """
    settings = settings_of(name, preset)
    if name not in CLASSES:
        raise SettingsError(f"{name} has no reader")
    return CLASSES[name](settings)
