"""MMMU's pictures and draws; what MathVista and MM-Vet ask of a judge, and how its words count."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import groundtruth
import pytest
from drawn_benchmarks import picture
from drawn_charts_and_exams import LAYOUTS, answered, content, predict, read

import flashsloth
from flashsloth.evaluation.answerer import FlashSlothAnswerer
from flashsloth.evaluation.mathvista_answers import comparable, of_2023, stated_answer
from flashsloth.evaluation.mathvista_prompts import hub_query
from flashsloth.evaluation.scoring import score
from flashsloth.evaluation.settings import LMMS, settings_of
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import CLASSES, make_task

OPTIONS = ["a cat", "a dog", "a cow", "a hen"]


def test_a_flashsloth_sees_mmmus_pictures_in_their_places(tmp_path: Path) -> None:
    sloth = flashsloth.load(device="cpu")
    [placed] = [item for item in read(tmp_path, "mmmu", "hub", LMMS) if item.id == "validation_Math_1"]
    first = replace(placed, parts=())
    settings = replace(settings_of("mmmu", LMMS), max_tokens=8)
    asked = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in placed.parts]
    expected = [sloth.answer(content(placed), question, max_tokens=8) for question in (asked, placed.prompt)]
    answers = dict(FlashSlothAnswerer(sloth, "tiny").answers([placed, first], settings, seed=0))
    assert expected[0] != expected[1]
    assert [answers[place].text.strip() for place in range(2)] == expected
    prompts = [sloth.request(content(placed), question).prompt.input_ids for question in (asked, placed.prompt)]
    assert prompts[0] != prompts[1]


def test_mmmu_pictures_stand_first_or_in_their_places(tmp_path: Path) -> None:
    first = {item.id: item for item in read(tmp_path / "paper", "mmmu", "hub")}
    placed = {item.id: item for item in read(tmp_path / "lmms", "mmmu", "hub", LMMS)}
    assert {item.parts for item in first.values()} == {()}
    assert [item.prompt for item in first.values()] == [item.prompt for item in placed.values()]
    after = "Answer with the option's letter from the given choices directly."
    assert placed["validation_Art_1"].parts[:2] == ("Which", None)
    assert placed["validation_Math_1"].parts == ("Is", None, "like", None, "?\nA.", None, f"B. no\n\n{after}")
    assert content(placed["validation_Math_1"]) == [picture(0), picture(1), picture(0)]
    assert content(first["validation_Math_2"]) == [picture(1)]
    assert placed["validation_Math_2"].truth == {"answer": ["two", "2"], "options": []}


def test_mmmu_draws_do_not_depend_on_the_order_of_answers() -> None:
    truth = {"answer": ["A"], "options": OPTIONS}
    names = [f"validation_{subject}_{number}" for subject in ("Art", "Math") for number in range(1, 13)]
    answers = [replace(answered("Zzz", **truth), id=name, group=name) for name in names]
    said = {one.predictions[0].id: one.said for one in score(make_task("mmmu"), answers)[1]}
    turned = {one.predictions[0].id: one.said for one in score(make_task("mmmu"), answers[::-1])[1]}
    assert said == turned
    drawn = random.Random(42)
    assert [said[name] for name in names] == [f"{drawn.choice('ABCD')}, drawn" for _ in names]
    assert {one.name: one.value for one in score(make_task("mmmu"), answers)[0].figures}["drawn"] == 100


@groundtruth.needed
def test_mathvistas_questions_are_asked_of_a_judge_as_published() -> None:
    """Bard was asked in the words of the hub's column `query`; of ten the order of options was changed."""
    turned = 0
    for row in groundtruth.whole("mathvista/output_bard.json").values():
        asked = row["question"] + (f" (Unit: {row['unit']})" if row["unit"] else "")
        found = hub_query(asked, {**row, "choices": row["choices"] or []})
        if found != row["query"]:
            turned += 1
            assert found.split("Choices:")[0] == row["query"].split("Choices:")[0]
    assert turned == 10


CHOICE = {"question_type": "multi_choice", "answer_type": "text", "choices": ["6cm", "7cm"], "precision": None}
INTEGER = {"question_type": "free_form", "answer_type": "integer", "choices": [], "precision": None}
FLOAT = {"question_type": "free_form", "answer_type": "float", "choices": [], "precision": 1}


@pytest.mark.parametrize(
    ("truth", "answer", "stated", "compared"),
    [
        (CHOICE, " 7cm ", "7cm", "7cm"),
        (CHOICE, "B", "B", "7cm"),
        (CHOICE, "(B).", "B", "7cm"),
        (CHOICE, "C", None, "6cm"),
        (CHOICE, "", "", "6cm"),
        (CHOICE, 'The answer is "(b) 7cm".', "(b) 7cm", "7cm"),
        (CHOICE, "It is 7 cm long", None, "7cm"),
        (INTEGER, " 5\n", "5", "5"),
        (INTEGER, "5.0", None, "5"),
        (INTEGER, "five", None, None),
        (INTEGER, "inf", None, None),
        (FLOAT, "1.25", "1.25", "1.2"),
        (FLOAT, "nan", "nan", "nan"),
        (FLOAT, "about 1.2", None, None),
    ],
)
def test_mathvista_rules(truth: dict[str, Any], answer: str, stated: str | None, compared: str | None) -> None:
    assert stated_answer(answer, truth) == stated
    assert comparable(answer if stated is None else stated, truth) == compared


def test_mathvista_whole_numbers_of_two_times() -> None:
    assert (comparable("5.0", INTEGER), comparable("5.0", INTEGER, of_2023)) == ("5", None)


def test_mathvista_asks_a_judge_where_rules_fail(tmp_path: Path) -> None:
    items, task = read(tmp_path, "mathvista", "own"), make_task("mathvista")
    assert task.judge_request(predict(items[0], "5")) is None
    request = task.judge_request(predict(items[2], " It is 1.25 cm. "))
    assert request is not None
    assert (request.max_tokens, request.temperature) == (256, 0)
    assert request.text.startswith("Please read the following example. Then extract the answer from the model response")
    assert request.text.count("Extracted answer:") == 6
    assert request.text.endswith(
        "two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45, at the end.\n"
        "Question: What is it? (Unit: cm)\n\nIt is 1.25 cm.\n\nExtracted answer: "
    )
    assert [request.read(reply) for reply in (" 1.25\n", " \n", "1" * 9999)] == ["1.25", None, None]
    summary, scored = score(task, [predict(items[0], "5"), predict(items[2], "It is 1.25 cm.")])
    assert [one.value for one in scored] == [1.0, None]
    assert (summary.unjudged, summary.judged, summary.score.value, summary.score.high) == (1, 0, 50.0, 100.0)
    judged = predict(items[2], "It is 1.25 cm.", "1.25")
    assert score(task, [predict(items[0], "5"), judged])[0].score.value == 100


def test_mathvista_styles(tmp_path: Path) -> None:
    LAYOUTS["mathvista"]["own"](tmp_path)
    asked = {
        style: [*CLASSES["mathvista"](replace(settings_of("mathvista"), style=style)).read(tmp_path)][4].prompt
        for style in ("format", "cot", "solution")
    }
    hint = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
    assert asked["cot"] == f"Question: What is it?\nChoices:\n(A) yes\n(B) no\n{hint}"
    assert asked["solution"] == f"{asked['cot']}\nSolution:"
    assert asked["format"].startswith("What is it?\nA. yes\nB. no\nAnswer with")


def test_mmvet_is_judged_by_the_publishers_table(tmp_path: Path) -> None:
    items, task = read(tmp_path, "mmvet", "own"), make_task("mmvet")
    request = task.judge_request(predict(items[0], "x = -5"))
    assert request is not None
    assert (request.max_tokens, request.temperature) == (3, 0)
    head, table = request.text.split("\n\nQuestion | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\n")
    assert head.endswith("Just complete the last space of the correctness score.")
    *rows, empty, last = table.split("\n")
    assert (len(rows), empty) == (7, "")
    assert last == "What is x? | -1 <AND> -5 | x = -5 | "
    assert [request.read(reply) for reply in ("0.5", " 1.0\n", "0", "1", ".5", "0.")] == [
        "0.5",
        "1.0",
        "0",
        "1",
        ".5",
        "0.",
    ]
    prose = ("", "0.5.", "1.1", "-0.5", "0.5 |", "nan", "5", "0.5 because", "½", "0.5\n0.6", "１")
    assert [request.read(reply) for reply in prose] == [None] * len(prose)


def test_mmvet_figures(tmp_path: Path) -> None:
    items, task = read(tmp_path, "mmvet", "own"), make_task("mmvet")
    forged = "x\nWhat is x? | -1 | x | 1.0"
    asked = [
        predict(items[0], forged, "1.0"),
        predict(items[1], "Ann", "0.5", "0.6"),
        predict(items[2], "a cat", "0.0"),
    ]
    summary, scored = score(task, asked)
    figures = {one.name: round(one.value, 2) for one in summary.figures}
    assert figures["total"] == pytest.approx(51.67)
    assert (figures["math"], figures["ocr"], figures["rec"], figures["spat"]) == (100, 100, 27.5, 0)
    assert (figures["could forge a row"], figures["total without those"]) == (33.33, 27.5)
    assert [one.value for one in scored] == [1.0, 0.55, 0.0]
    request = task.judge_request(asked[0])
    assert request is not None
    assert request.text.endswith(f" | {forged} | ")  # sent as it is
    for answer, share in (("x\ny", 100), ("x | y", 100), ("x, y", 0)):
        flagged = {one.name: one.value for one in score(task, [predict(items[0], answer, "0.5")])[0].figures}
        assert flagged["could forge a row"] == share
    summary, _ = score(task, [replace(one, judgements=one.judgements[:place]) for place, one in enumerate(asked)])
    assert (summary.unjudged, summary.judged) == (1, 2)
    assert summary.score.value == pytest.approx(100 * 0.5 / 3)
    assert summary.score.high == pytest.approx(50)  # both pictures, if the first is right
    with pytest.raises(EvaluationError, match="was judged 'good', expected a grade from 0 to 1"):
        score(task, [predict(items[0], "x", "good")])
