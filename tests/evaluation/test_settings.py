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


def test_the_papers_figures_and_sizes() -> None:
    """Table 1 of the paper, FlashSloth and FlashSloth-HD; questions that count."""
    assert {row.task: (row.paper, row.paper_hd, row.size) for row in TABLE} == {
        "pope": (86.3, 87.2, 9000),
        "mme": (1702, 1745, 2374),
        "mmbench": (73.0, 75.7, 4329),
        "mmvet": (41.9, 49.0, 218),
        "seedbench": (68.0, 71.2, 14233),
        "mmmu": (39.7, 37.8, 900),
        "mathvista": (42.5, 40.6, 1000),
        "gqa": (61.1, 62.5, 12578),
        "scienceqa": (88.6, 91.1, 2017),
        "textvqa": (64.6, 71.0, 5000),
        "ai2d": (72.5, 75.3, 3088),
        "chartqa": (51.0, 69.8, 2500),
        "docvqa": (48.6, 74.8, 5349),
        "realworldqa": (54.8, 59.9, 765),
    }


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
