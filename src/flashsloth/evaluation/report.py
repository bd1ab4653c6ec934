"""What a run of a benchmark says: its figures, the paper's beside them, and what is not as it was there.

In: the header of predictions, and their score. Out: a :class:`Report`, which `summary.json` holds whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.predictions import JUDGE
from flashsloth.evaluation.scoring import Summary
from flashsloth.evaluation.settings import PAPER, TaskSettings
from flashsloth.files import write_whole

SUMMARY = "summary.json"
FLASHSLOTH, FLASHSLOTH_HD = "FlashSloth", "FlashSloth-HD"
PUBLISHED_DTYPE = "float16"
NOT_AS_PUBLISHED = {"mmmu": "all pictures are seen (the published code saw a prompt's first)"}
"""What differs however a task is run with preset paper."""


@dataclass(frozen=True)
class Report:
    """A task's result.

    Attributes:
        title: what the paper calls it.
        model: what answered, in a few words.
        summary: the figures.
        asked: questions there were; more than were counted where some could not be answered.
        paper, paper_model: the paper's figure, and of which of its models.
        seconds, tokens: an answer took on average; None where nobody knows.
        differs: from the paper, in a word each.
    """

    title: str
    model: str
    summary: Summary
    asked: int
    paper: float
    paper_model: str
    seconds: float | None
    tokens: float | None
    differs: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every question was answered, and every answer judged."""
        return self.asked == self.summary.items and not self.summary.unjudged

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {**asdict(self), "is_whole": self.is_whole}

    def save(self, folder: Path) -> None:
        """Write `summary.json`."""
        write_whole(folder / SUMMARY, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")


def make_report(
    header: dict[str, Any],
    settings: TaskSettings,
    summary: Summary,
    predictions: Sequence[Prediction],
    *,
    asked: int | None = None,
    seconds: float | None = None,
) -> Report:
    """The report of predictions.

    Args:
        header: of their file.
        settings: that they were scored with.
        summary: their score.
        predictions: themselves.
        asked: questions there were; None for as many as there are predictions.
        seconds: that an answer took.
    """
    model = header.get("model", {})
    is_hd = model.get("views", 1) > 1 and model.get("resolution") != "standard"
    counted = [one.tokens for one in predictions if one.tokens is not None]
    return Report(
        settings.title,
        model.get("name", "not known"),
        summary,
        len(predictions) if asked is None else asked,
        settings.paper_hd if is_hd else settings.paper,
        FLASHSLOTH_HD if is_hd else FLASHSLOTH,
        seconds,
        sum(counted) / len(counted) if counted else None,
        tuple(_differences(header, settings, summary)),
    )


def _differences(header: dict[str, Any], settings: TaskSettings, summary: Summary) -> list[str]:
    """What is not as in the paper."""
    model, found = header.get("model", {}), []
    if settings.preset != PAPER:
        found.append(f"preset {settings.preset}")
    elif settings.task in NOT_AS_PUBLISHED:
        found.append(NOT_AS_PUBLISHED[settings.task])
    if settings.not_known:
        found.append(f"not known: {', '.join(settings.not_known)}")
    if summary.items != settings.size:
        found.append(f"{summary.items:,} of {settings.size:,} questions")
    if model.get("dtype", PUBLISHED_DTYPE) != PUBLISHED_DTYPE:
        found.append(f"{model['dtype']} (published: {PUBLISHED_DTYPE})")
    if model.get("quantize"):
        found.append(f"{model['quantize']} weights")
    if not settings.pictures_first:
        found.append("pictures in their places (published: all before the text)")
    if model.get("resolution"):
        found.append(f"resolution {model['resolution']}")
    if settings.temperature:
        found.append(f"drawn at temperature {settings.temperature:g}, and the paper's seed is not known")
    judge = header.get(JUDGE, {}).get("model")
    if settings.judge and summary.judged and judge != settings.judge:
        found.append(f"judged by {judge or 'nobody knows whom'} (published: {settings.judge})")
    return found
