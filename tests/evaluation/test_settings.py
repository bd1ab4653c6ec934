"""The table of settings is what was recorded of the two versions of lmms-eval, and of LLaVA's scripts what is known."""

from __future__ import annotations

from dataclasses import asdict

import groundtruth
import pytest

from flashsloth.evaluation.settings import IN_LLAVA, LLAVA, LMMS, NOT_SET, PAPER, TABLE, SettingsError, settings_of

RECORDED = {PAPER: "paper", LMMS: "lmms_eval_0.7.3"}


@groundtruth.needed
@pytest.mark.parametrize("preset", RECORDED)
def test_lmms_evals_settings(preset: str) -> None:
    recorded = groundtruth.whole(f"golden/prompts_and_settings_{RECORDED[preset]}.json")
    assert {settings_of(row.task, preset).lmms_task for row in TABLE} == set(recorded)
    for row in TABLE:
        ours = settings_of(row.task, preset)
        theirs = recorded[ours.lmms_task]
        generation = theirs["generation_kwargs"]
        assert (ours.dataset, ours.config, ours.split) == (theirs["dataset"], theirs["name"], theirs["split"])
        assert ours.max_tokens == generation.get("max_new_tokens", NOT_SET), row.task
        assert ours.temperature == generation.get("temperature", 0), row.task


def test_the_papers_figures() -> None:
    """Table 1 of the paper, FlashSloth and FlashSloth-HD; questions that count; which of the figures it is."""
    assert {row.task: (row.title, row.paper, row.paper_hd, row.size, row.metric) for row in TABLE} == {
        "pope": ("POPE", 86.3, 87.2, 9000, "accuracy"),
        "mme": ("MME", 1702.0, 1745.0, 2374, "total"),
        "mmbench": ("MMBench", 73.0, 75.7, 4329, "circular"),
        "mmvet": ("MM-Vet", 41.9, 49.0, 218, "total"),
        "seedbench": ("SEED-Bench, images", 68.0, 71.2, 14233, "image"),
        "mmmu": ("MMMU", 39.7, 37.8, 900, "accuracy"),
        "mathvista": ("MathVista", 42.5, 40.6, 1000, "accuracy"),
        "gqa": ("GQA", 61.1, 62.5, 12578, "exact_match"),
        "scienceqa": ("ScienceQA, pictures", 88.6, 91.1, 2017, "image"),
        "textvqa": ("TextVQA", 64.6, 71.0, 5000, "accuracy"),
        "ai2d": ("AI2D", 72.5, 75.3, 3088, "accuracy"),
        "chartqa": ("ChartQA", 51.0, 69.8, 2500, "relaxed"),
        "docvqa": ("DocVQA", 48.6, 74.8, 5349, "anls"),
        "realworldqa": ("RealWorldQA", 54.8, 59.9, 765, "exact_match"),
    }
    assert [row.task for row in TABLE if not row.pictures_first] == []
    assert not settings_of("mmmu", LMMS).pictures_first
    assert settings_of("pope", LLAVA).metric == "mean f1"


def test_judges() -> None:
    judges = {row.task: row.judge for row in TABLE if row.judge is not None}
    assert judges == {"mmvet": "gpt-4", "mmbench": "gpt-3.5-turbo", "mathvista": "gpt-3.5-turbo"}
    for task in ("pope", *judges):
        assert settings_of(task, LMMS).judge == ("gpt-4o-2024-11-20" if task in judges else None)


def test_llavas_settings() -> None:
    """Its scripts are greedy, and only MMBench's has a limit of its own; its POPE and MMBench are older files."""
    assert set(IN_LLAVA) == {"pope", "mme", "mmbench", "gqa", "textvqa"}
    for task in IN_LLAVA:
        ours = settings_of(task, LLAVA)
        assert (ours.preset, ours.max_tokens) == (LLAVA, 1024 if task == "mmbench" else 2000)
        assert ours.temperature == 0
        same = ("title", "dataset", "config", "split", "before", "after", "judge", "paper", "paper_hd")
        paper = asdict(settings_of(task))
        assert {key: asdict(ours)[key] for key in same} == {key: paper[key] for key in same}
    assert settings_of("pope", LLAVA).size == 8910
    assert settings_of("mmbench", LLAVA).size == 4377


def test_unknown_names() -> None:
    with pytest.raises(SettingsError, match="no task 'vqav2'"):
        settings_of("vqav2")
    with pytest.raises(SettingsError, match="preset is 'today'"):
        settings_of("pope", "today")
    with pytest.raises(SettingsError, match="have no mmvet"):
        settings_of("mmvet", LLAVA)
