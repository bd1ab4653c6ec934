"""AI2D, ChartQA, DocVQA, RealWorldQA, MathVista, MMMU and MM-Vet: what is read, asked, judged and counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import groundtruth
import pytest
from drawn_benchmarks import picture
from drawn_charts_and_exams import LAYOUTS, answered, content, predict, read

import flashsloth
from flashsloth.evaluation.answerer import FlashSlothAnswerer, Reply
from flashsloth.evaluation.edit_distance import anls, edit_distance
from flashsloth.evaluation.item import Item, Scored
from flashsloth.evaluation.mmmu_answers import chosen_letter, is_open_right
from flashsloth.evaluation.option_letter import option_letter
from flashsloth.evaluation.scoring import score
from flashsloth.evaluation.settings import LMMS, PAPER, TASKS, settings_of
from flashsloth.evaluation.task import EvaluationError, Task
from flashsloth.evaluation.tasks import CLASSES, make_task
from flashsloth.evaluation.tasks.chartqa import is_relaxed_right

GOLDEN = {PAPER: "paper", LMMS: "lmms_eval_0.7.3"}
DRAWN = [(name, layout) for name, layouts in LAYOUTS.items() for layout in layouts]
OPTIONS = ["a cat", "a dog", "a cow", "a hen"]


@pytest.fixture(scope="module")
def sloth() -> flashsloth.FlashSloth:
    return flashsloth.load(device="cpu")


def test_every_task_of_the_table_has_a_reader() -> None:
    assert set(CLASSES) == set(TASKS)


@pytest.mark.parametrize("preset", GOLDEN)
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_the_same_questions(name: str, preset: str, tmp_path: Path) -> None:
    first, *others = [read(tmp_path / layout, name, layout, preset) for layout in LAYOUTS[name]]
    for other in others:
        assert [replace(item, pictures=()) for item in other] == [replace(item, pictures=()) for item in first]
        assert [content(item) for item in other] == [content(item) for item in first]
    assert len({item.id for item in first}) == len(first) > 1
    for item in first:
        assert item.pictures
        assert set(content(item)) <= {picture(0), picture(1)}  # the third is another split's


@groundtruth.needed
@pytest.mark.parametrize("preset", GOLDEN)
@pytest.mark.parametrize("name", LAYOUTS)
def test_prompts_are_the_recorded_ones(name: str, preset: str, tmp_path: Path) -> None:
    recorded = groundtruth.whole(f"golden/prompts_and_settings_{GOLDEN[preset]}.json")
    wanted = recorded[settings_of(name, preset).lmms_task]["prompts"]
    assert set(wanted) <= {item.prompt for item in read(tmp_path, name, "hub", preset)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_stands_round_a_question_is_its_settings(name: str, tmp_path: Path) -> None:
    LAYOUTS[name]["hub"](tmp_path)
    changed = replace(settings_of(name), before="First. ", after=" Last.", after_open=" Last.")
    for item in CLASSES[name](changed).read(tmp_path):
        assert item.prompt.startswith("First. ")
        assert item.prompt.endswith(" Last.")


@pytest.mark.parametrize(("name", "layout"), DRAWN)
def test_right_and_wrong_answers(name: str, layout: str, tmp_path: Path) -> None:
    items, task = read(tmp_path, name, layout), make_task(name)
    right = {item.id: right_answer(item) for item in items}
    for expected, said in ((1.0, right), (0.0, dict.fromkeys(right, "1234"))):
        judgements = {
            "mmvet": dict.fromkeys(right, (str(expected),)),
            "mathvista": {one: (said[one],) for one in right},
        }
        answers = [predict(item, said[item.id], *judgements.get(name, {}).get(item.id, ())) for item in items]
        summary, scored = score(task, answers)
        assert {one.value for one in scored if not is_guessed(one)} == {expected}
        assert summary.score.name == task.settings.metric
        assert expected == 0 or summary.score.value == 100


def is_guessed(one: Scored) -> bool:
    """An option is drawn (MMMU), or the nearest one taken (MathVista), where an answer names none."""
    return "drawn" in one.said or bool(one.predictions[0].truth.get("choices"))


def right_answer(item: Item) -> str:
    truth = item.truth.get("answer", item.truth.get("answers"))
    return truth if isinstance(truth, str) else truth[-1]


@pytest.mark.parametrize(("name", "layout"), DRAWN)
def test_a_model_sees_every_layouts_pictures(
    name: str, layout: str, tmp_path: Path, sloth: flashsloth.FlashSloth
) -> None:
    for preset in GOLDEN:
        items = read(tmp_path / preset, name, layout, preset)
        settings = replace(settings_of(name, preset), max_tokens=2)
        answers = dict(FlashSlothAnswerer(sloth, "tiny").answers(items, settings, seed=0))
        replies = [answers[place] for place in range(len(items))]
        assert all(isinstance(one, Reply) for one in replies), replies
        predictions = [predict(item, answers[place].text, "0.5") for place, item in enumerate(items)]
        assert score(make_task(name, preset), predictions)[0].items == len(items)


def test_the_rules_of_each_preset() -> None:
    assert {name: [settings_of(name, preset).scorer for preset in GOLDEN] for name in LAYOUTS} == {
        "mmvet": ["graded 0 to 1"] * 2,
        "mmmu": ["MMMU's parser"] * 2,
        "mathvista": ["extracted, then equal"] * 2,
        "ai2d": ["letter and a dot"] * 2,
        "chartqa": ["relaxed, 5 %"] * 2,
        "docvqa": ["ANLS 0.5"] * 2,
        "realworldqa": ["number words and option texts", "letter or equal"],
    }


@groundtruth.needed
@pytest.mark.parametrize("preset", GOLDEN)
def test_scores_are_the_recorded_ones(preset: str) -> None:
    rules: dict[str, Callable[..., object]] = {
        "chartqa": is_relaxed_right,
        "anls": lambda answer, truths: anls(answer, [one.strip("' ") for one in truths.strip("[]").split(",")]),
        "mmmu": lambda answer: chosen_letter(answer, OPTIONS) or random.Random(0).choice("ABCD"),  # lmms-eval's seed
        "mmmu_open": lambda answer, truth: is_open_right(answer, [truth]),
        "ai2d": lambda answer: value(make_task("ai2d", preset), answer, answer="C"),
        "realworldqa": lambda answer, truth: value(
            make_task("realworldqa", preset), answer, answer=truth, options=["left", "right", "up"]
        ),
    }
    counted = 0
    for key, expected in groundtruth.whole(f"golden/scores_{GOLDEN[preset]}.json").items():
        kind, *said = key.split("|")
        if kind in rules:
            assert rules[kind](*said) == expected, key
            counted += 1
    assert counted == 63


def value(task: Task, said: str, **truth: Any) -> float | None:
    return task.score([answered(said, **truth)]).value


def test_the_scorer_decides() -> None:
    paper, lmms = make_task("realworldqa"), make_task("realworldqa", LMMS)
    truth = {"answer": "B", "options": ["left", "right", "up"]}
    assert (value(paper, "bright", **truth), value(lmms, "bright", **truth)) == (1.0, 0.0)
    words = {"answer": "0", "options": []}
    assert [value(paper, said, **words) for said in ("zero", "Zero", "none", "zero.")] == [1.0, 1.0, 0.0, 0.0]
    choice = {"answer": ["A"], "options": ["A. B. Yehoshua", "other"]}
    new, old = (make_task("mmmu", scorer=rules) for rules in ("MMMU's parser", "MMMU's parser of 2023"))
    assert (value(new, "(it is) A. ", **choice), value(new, "xA.y", **choice)) == (1.0, 1.0)
    assert old.score([answered("xA.y", **choice)]).said.endswith("drawn")
    with pytest.raises(EvaluationError, match=r"MMMU cannot be scored by 'best'; expected \"MMMU's parser\", "):
        make_task("mmmu", scorer="best")


def test_edit_distance() -> None:
    assert [edit_distance(*pair) for pair in (("", ""), ("", "abc"), ("kitten", "sitting"), ("ab", "ba"))] == [
        0,
        3,
        3,
        2,
    ]
    assert anls("ab", ["cd", "abab"]) == 0.5
    assert anls("ab", ["ababa"]) == 0
    assert anls("", [""]) == 1


def test_relaxed_numbers() -> None:
    assert is_relaxed_right("105", "100")
    assert not is_relaxed_right("105.1", "100")
    assert is_relaxed_right("0", "0")
    assert not is_relaxed_right("0.0", "0")
    assert not is_relaxed_right("nan", "14")
    assert not is_relaxed_right("%", "14")


def test_an_option_letter_in_free_text() -> None:
    said = ["B", "(B)", "B.", "B) right", "the answer is B", "I choose B because it is right", "A or B", "b", "", "BAD"]
    assert [option_letter(one, "ABCD") for one in said] == ["B", "B", "B", "B", "B", "B", "A", "", "", "D"]
