"""The table of settings is what was recorded of two versions of lmms-eval, and what is written here of the rest.

What is expected is spelled out here a second time, or comes from the recorded files; every field of every row, turned,
is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import groundtruth
import pytest
import recorded_answers
import recorded_mathvista_mmmu_mmvet as recorded
from settings_table import settings_tables

from flashsloth.evaluation.predictions import ids_digest
from flashsloth.evaluation.settings import (
    LLAVA,
    LMMS,
    PAPER,
    PRESETS,
    TABLE,
    SettingsError,
    TaskSettings,
    settings_of,
)

Row = tuple[str, str]
"""Preset and task."""
RECORDED = {PAPER: "paper", LMMS: "lmms_eval_0.7.3"}
ADAPTERS_LIMIT = 2000
PHRASE = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
HARNESS = "which of the two harnesses gave the paper's figure"
EVERYWHERE: dict[str, Any] = {
    "groups": None,
    "ids": None,
    "style": "",
    "before": "",
    "after": "",
    "after_open": None,
    "pictures_first": True,
    "judge": None,
    "not_known": (),
}
IN_PAPER: dict[str, dict[str, Any]] = {
    "pope": {
        "title": "POPE", "lmms_task": "pope", "lmms_metrics": ("pope_accuracy",), "size": 9000, "after": PHRASE,
        "scorer": "is yes or no", "metric": "accuracy", "paper": 86.3, "paper_hd": 87.2,
        "not_known": ("whether its figure is accuracy or F1", HARNESS), "ids": "5755beca960a8bed",
    },
    "mme": {
        "title": "MME", "lmms_task": "mme", "lmms_metrics": ("mme_percetion_score", "mme_cognition_score"),
        "size": 2374, "style": "as stored", "after": PHRASE, "scorer": "yes or no in four characters",
        "metric": "total", "paper": 1702.0, "paper_hd": 1745.0, "ids": "2e514dd208f5ebe5",
        "not_known": ("whether its figure is perception + cognition", HARNESS),
    },
    "mmbench": {
        "title": "MMBench", "lmms_task": "mmbench_en_dev", "lmms_metrics": ("gpt_eval_score",), "size": 4329,
        "groups": 1164, "style": "several options", "after": LETTER, "scorer": "circular", "judge": "gpt-3.5-turbo",
        "metric": "circular", "paper": 73.0, "paper_hd": 75.7, "not_known": (HARNESS,),
    },
    "mmvet": {
        "title": "MM-Vet", "lmms_task": "mmvet", "lmms_metrics": ("gpt_eval_score",), "size": 218,
        "before": "First please perform reasoning, and think step by step to provide best answer to the following "
        "question: \n\n", "scorer": "graded 0 to 1", "judge": "gpt-4", "metric": "total", "paper": 41.9,
        "paper_hd": 49.0, "ids": "9df29fc209387081",
    },
    "seedbench": {
        "title": "SEED-Bench, images", "lmms_task": "seedbench", "lmms_metrics": ("seed_image",), "size": 14233,
        "after": LETTER, "scorer": "first character", "metric": "image", "paper": 68.0, "paper_hd": 71.2,
        "ids": "c17b5e7174ffb1f5",
    },
    "mmmu": {
        "title": "MMMU", "lmms_task": "mmmu_val", "lmms_metrics": ("mmmu_acc",), "size": 900, "after": "\n" + LETTER,
        "after_open": "\n" + PHRASE, "scorer": "MMMU's parser", "metric": "accuracy", "paper": 39.7,
        "paper_hd": 37.8, "ids": "40c4dc6f55979bf5",
    },
    "mathvista": {
        "title": "MathVista", "lmms_task": "mathvista_testmini_format", "lmms_metrics": ("gpt_eval_score",),
        "size": 1000, "style": "format", "scorer": "extracted, then equal", "judge": "gpt-3.5-turbo",
        "metric": "accuracy", "paper": 42.5, "paper_hd": 40.6, "not_known": ("which of three prompts it used",),
        "ids": "373e2a01f75e0191",
    },
    "gqa": {
        "title": "GQA", "lmms_task": "gqa", "lmms_metrics": ("exact_match",), "size": 12578, "after": PHRASE,
        "scorer": "exact match", "metric": "exact_match", "paper": 61.1, "paper_hd": 62.5, "not_known": (HARNESS,),
    },
    "scienceqa": {
        "title": "ScienceQA, pictures", "lmms_task": "scienceqa_img", "lmms_metrics": ("exact_match",),
        "size": 2017, "after": LETTER, "scorer": "is the letter", "metric": "image", "paper": 88.6, "paper_hd": 91.1,
    },
    "textvqa": {
        "title": "TextVQA", "lmms_task": "textvqa_val", "lmms_metrics": ("exact_match",), "size": 5000,
        "style": "question", "after": PHRASE, "scorer": "VQA accuracy", "metric": "accuracy", "paper": 64.6,
        "paper_hd": 71.0, "not_known": ("whether OCR tokens stood in its prompts (likely they did)", HARNESS),
    },
    "ai2d": {
        "title": "AI2D", "lmms_task": "ai2d", "lmms_metrics": ("exact_match",), "size": 3088, "after": LETTER,
        "scorer": "letter and a dot", "metric": "accuracy", "paper": 72.5, "paper_hd": 75.3,
    },
    "chartqa": {
        "title": "ChartQA", "lmms_task": "chartqa", "lmms_metrics": ("relaxed_overall",), "size": 2500,
        "after": "\nAnswer the question with a single word.", "scorer": "relaxed, 5 %", "metric": "relaxed",
        "paper": 51.0, "paper_hd": 69.8,
    },
    "docvqa": {
        "title": "DocVQA", "lmms_task": "docvqa_val", "lmms_metrics": ("anls",), "size": 5349, "after": PHRASE,
        "scorer": "ANLS 0.5", "metric": "anls", "paper": 48.6, "paper_hd": 74.8,
    },
    "realworldqa": {
        "title": "RealWorldQA", "lmms_task": "realworldqa", "lmms_metrics": ("exact_match",), "size": 765,
        "scorer": "number words and option texts", "metric": "exact_match", "paper": 54.8, "paper_hd": 59.9,
    },
}  # fmt: skip
OTHERWISE: dict[Row, dict[str, Any]] = {
    (LMMS, "mme"): {"lmms_metrics": ("mme_perception_score", "mme_cognition_score")},
    (LMMS, "mmbench"): {"judge": "gpt-4o-2024-11-20"},
    (LMMS, "mmvet"): {"judge": "gpt-4o-2024-11-20"},
    (LMMS, "mmmu"): {"pictures_first": False},
    (LMMS, "mathvista"): {"judge": "gpt-4o-2024-11-20", "lmms_metrics": ("llm_as_judge_eval",)},
    (LMMS, "scienceqa"): {"scorer": "begins with the letter"},
    (LMMS, "realworldqa"): {"scorer": "letter or equal"},
    (LLAVA, "pope"): {
        "size": 8910, "ids": "3e178eb255fec1d2", "max_tokens": 2000, "scorer": "yes or no somewhere",
        "metric": "mean f1",
    },
    (LLAVA, "mme"): {"max_tokens": 2000, "style": "stripped", "scorer": "MME's own"},
    (LLAVA, "mmbench"): {"size": 4377, "groups": 1176, "ids": "ae1ab5791778b1e3", "style": "a line each"},
    (LLAVA, "gqa"): {"max_tokens": 2000, "scorer": "GQA's own"},
    (LLAVA, "textvqa"): {"style": "question and OCR tokens"},
}  # fmt: skip
ALL = [(preset, task) for preset in PRESETS for task in IN_PAPER if preset != LLAVA or (LLAVA, task) in OTHERWISE]


@cache
def generation(preset: str) -> Mapping[str, Any]:
    """What was recorded of lmms-eval; LLaVA's scripts are held against the older of two."""
    return groundtruth.whole(f"golden/prompts_and_settings_{RECORDED.get(preset, RECORDED[PAPER])}.json")


def expected(preset: str, task: str) -> dict[str, Any]:
    """Every field of a row."""
    written = {**EVERYWHERE, **IN_PAPER[task], **OTHERWISE.get((preset, task), {})}
    theirs = generation(preset)[written["lmms_task"]]
    said = theirs["generation_kwargs"]
    assert set(written["lmms_metrics"]) <= set(theirs["metrics"]) or preset == LLAVA
    return {
        "task": task,
        "preset": preset,
        "dataset": theirs["dataset"],
        "config": theirs["name"],
        "split": theirs["split"],
        "max_tokens": said.get("max_new_tokens", ADAPTERS_LIMIT),
        "temperature": said.get("temperature", 0),
        "top_p": said.get("top_p", 1),
        **written,
    }


def mistakes(rows: Mapping[Row, TaskSettings]) -> Iterator[tuple[str, str, str]]:
    """(preset, task, field) of what is not as expected."""
    for (preset, task), row in rows.items():
        wanted = expected(preset, task)
        assert set(wanted) == {one.name for one in fields(TaskSettings)}
        for name, value in wanted.items():
            if getattr(row, name) != value:
                yield preset, task, name


def table() -> dict[Row, TaskSettings]:
    return {(preset, task): settings_of(task, preset) for preset, task in ALL}


@groundtruth.needed
def test_every_field_is_as_recorded_or_written() -> None:
    assert [row.task for row in TABLE] == list(IN_PAPER)
    assert list(mistakes(table())) == []


@groundtruth.needed
@pytest.mark.parametrize(("preset", "task"), ALL)
def test_every_field_that_is_turned_is_noticed(preset: str, task: str) -> None:
    row = settings_of(task, preset)
    for one in fields(TaskSettings):
        turned = replace(row, **{one.name: other(getattr(row, one.name))})
        assert list(mistakes({**table(), (preset, task): turned})) == [(preset, task, one.name)]


def other(value: Any) -> Any:
    """Another value of its kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return (*value, "more") if isinstance(value, tuple) else f"{value or ''}more"


@groundtruth.needed
def test_prompts_stand_in_the_recorded_files_too() -> None:
    for preset in RECORDED:
        for row in TABLE:
            ours = settings_of(row.task, preset)
            theirs = generation(preset)[ours.lmms_task]
            specific = theirs["specific"] or {}
            assert specific.get("pre_prompt", ours.before) == ours.before
            assert specific.get("post_prompt", ours.after) == ours.after
            ends = {ours.after, *([] if ours.after_open is None else [ours.after_open])}
            assert all(any(prompt.endswith(end) for end in ends) for prompt in theirs["prompts"])


@groundtruth.needed
def test_digests_of_ids_are_those_of_the_recorded_files() -> None:
    pope = {
        f"{category}/{Path(line['image']).stem}/{line['text'].strip()}"
        for category, file in zip(recorded_answers.POPE, ("random_3000", "popular", "adversarial"), strict=True)
        for line in groundtruth.lines(f"pope/coco_pope_{file}.json")
    }
    found = {
        (PAPER, "pope"): pope,
        (LLAVA, "pope"): {one.id for one in recorded_answers.pope()},
        (PAPER, "mme"): {one.id for one in recorded_answers.mme_llava()},
        (LLAVA, "mmbench"): {one.id for one in recorded_answers.mmbench()},
        (PAPER, "mmvet"): {f"v1_{line['question_id']}" for line in groundtruth.lines("mmvet/llava-mm-vet.jsonl")},
        (PAPER, "seedbench"): {one.id for one in recorded_answers.seed_llava()},
        (PAPER, "mmmu"): {one.id for one in recorded.mmmu("qwen_vl")},
        (PAPER, "mathvista"): {one.id for one in recorded.mathvista("bard")},
    }
    for (preset, task), ids in found.items():
        row = settings_of(task, preset)
        assert (row.size, row.ids) == (len(ids), ids_digest(ids)), task
    known = {(preset, row.task) for preset in (PAPER, LLAVA) for row in TABLE if (preset, row.task) in ALL}
    assert {(preset, task) for preset, task in known if settings_of(task, preset).ids} - set(found) == {(LLAVA, "mme")}


def test_half_widths_of_intervals() -> None:
    """Of `shared/evaluation.md`; MME's score is no share of questions."""
    assert {row.task: row.half_width and f"{row.half_width:.1f}" for row in TABLE} == {
        "pope": "0.7", "mme": None, "mmbench": "2.6", "mmvet": "6.5", "seedbench": "0.8", "mmmu": "3.2",
        "mathvista": "3.1", "gqa": "0.9", "scienceqa": "1.4", "textvqa": "1.3", "ai2d": "1.6", "chartqa": "2.0",
        "docvqa": "1.3", "realworldqa": "3.5",
    }  # fmt: skip


def test_unknown_names() -> None:
    with pytest.raises(SettingsError, match="no task 'vqav2'"):
        settings_of("vqav2")
    with pytest.raises(SettingsError, match="preset is 'today'"):
        settings_of("pope", "today")
    with pytest.raises(SettingsError, match="have no mmvet"):
        settings_of("mmvet", LLAVA)


def test_the_docs_have_the_table() -> None:
    written = (Path(__file__).parents[2] / "docs" / "evaluation-settings.md").read_text(encoding="utf-8")
    assert written == settings_tables(), "python tools/settings_table.py > docs/evaluation-settings.md"
