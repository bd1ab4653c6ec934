"""The paper's benchmarks, one file each: how its files are read, what is asked, what is right, what the score is."""

from __future__ import annotations

from dataclasses import replace

from flashsloth.evaluation.settings import PAPER, SettingsError, settings_of
from flashsloth.evaluation.task import Task
from flashsloth.evaluation.tasks.ai2d import Ai2d
from flashsloth.evaluation.tasks.chartqa import ChartQa
from flashsloth.evaluation.tasks.docvqa import DocVqa
from flashsloth.evaluation.tasks.gqa import Gqa
from flashsloth.evaluation.tasks.mathvista import MathVista
from flashsloth.evaluation.tasks.mmbench import MmBench
from flashsloth.evaluation.tasks.mme import Mme
from flashsloth.evaluation.tasks.mmmu import Mmmu
from flashsloth.evaluation.tasks.mmvet import MmVet
from flashsloth.evaluation.tasks.pope import Pope
from flashsloth.evaluation.tasks.realworldqa import RealWorldQa
from flashsloth.evaluation.tasks.scienceqa import ScienceQa
from flashsloth.evaluation.tasks.seedbench import SeedBench
from flashsloth.evaluation.tasks.textvqa import TextVqa

CLASSES: dict[str, type[Task]] = {
    "pope": Pope,
    "mme": Mme,
    "mmbench": MmBench,
    "mmvet": MmVet,
    "seedbench": SeedBench,
    "mmmu": Mmmu,
    "mathvista": MathVista,
    "gqa": Gqa,
    "scienceqa": ScienceQa,
    "textvqa": TextVqa,
    "ai2d": Ai2d,
    "chartqa": ChartQa,
    "docvqa": DocVqa,
    "realworldqa": RealWorldQa,
}


def make_task(name: str, preset: str = PAPER, scorer: str | None = None) -> Task:
    """A benchmark by its name.

    Args:
        name: of its row in the table.
        preset: see `settings_of`.
        scorer: other rules than the preset's; see `Task.scorers`.

    Raises:
        SettingsError: where there is none, or not in this preset.
        EvaluationError: where it does not know the rules.
    """
    settings = settings_of(name, preset)
    if scorer is not None:
        settings = replace(settings, scorer=scorer)
    if name not in CLASSES:
        raise SettingsError(f"{name} has no reader")
    return CLASSES[name](settings)
