"""AI2D, ChartQA, DocVQA, RealWorldQA, MathVista, MMMU and MM-Vet: what is read, asked, judged and counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import groundtruth
import pyarrow
import pyarrow.parquet
import pytest
from drawn_benchmarks import picture, put, shown
from drawn_charts_and_exams import LAYOUTS

import flashsloth
from flashsloth.evaluation.answerer import FlashSlothAnswerer, Reply
from flashsloth.evaluation.edit_distance import anls, edit_distance
from flashsloth.evaluation.item import Item, Prediction, Scored
from flashsloth.evaluation.mathvista_answers import comparable, of_2023, stated_answer
from flashsloth.evaluation.mathvista_prompts import hub_query
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


def read(folder: Path, name: str, layout: str, preset: str = PAPER) -> list[Item]:
    LAYOUTS[name][layout](folder)
    return list(make_task(name, preset).read(folder))


def content(item: Item) -> list[bytes]:
    return [one() if callable(one) else one.read_bytes() for one in item.pictures]


def predict(item: Item, answer: str, *judgements: str) -> Prediction:
    return Prediction(item.id, item.prompt, item.truth, item.group, item.picture, answer, judgements=judgements)


def answered(said: str, **truth: Any) -> Prediction:
    """An answer to a question of which only some of the truth matters."""
    return Prediction("validation_Art_1", "", truth, "1", "1", said)


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


def test_a_flashsloth_sees_mmmus_pictures_in_their_places(tmp_path: Path, sloth: flashsloth.FlashSloth) -> None:
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
    summary, _ = score(task, [replace(one, judgements=one.judgements[:place]) for place, one in enumerate(asked)])
    assert (summary.unjudged, summary.judged) == (1, 2)
    assert summary.score.value == pytest.approx(100 * 0.5 / 3)
    assert summary.score.high == pytest.approx(50)  # both pictures, if the first is right
    with pytest.raises(EvaluationError, match="was judged 'good', expected a grade from 0 to 1"):
        score(task, [predict(items[0], "x", "good")])


def change(folder: Path, name: str, edit: Callable[[Any], Any]) -> None:
    """A JSON file of a folder, otherwise."""
    import json

    [path] = folder.rglob(name)
    put(path, edit(json.loads(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("name", "file", "edit", "said"),
    [
        ("mmvet", "mm-vet.json", lambda rows: [*rows.values()], "holds list, expected an object of questions"),
        ("mmvet", "mm-vet.json", lambda rows: {"v1_0": None}, "v1_0 is None, expected an object"),
        ("mmvet", "mm-vet.json", lambda rows: {"v1_0": {"question": 3}}, "question is 3, expected a text"),
        ("mmvet", "mm-vet.json", lambda rows: {"a": {**rows["v1_0"], "capability": "ocr"}}, "capability is 'ocr'"),
        ("mmvet", "mm-vet.json", lambda rows: {"a": {**rows["v1_0"], "imagename": "z"}}, "has no picture 'z'"),
        ("mmvet", "mm-vet.json", lambda rows: "{", "line 1, is not JSON"),
        ("mathvista", "annot_testmini.json", lambda rows: 5, "holds int, expected an object"),
        ("mathvista", "annot_testmini.json", lambda rows: {"1": {**rows["1"], "answer": None}}, "answer is None"),
        (
            "mathvista",
            "annot_testmini.json",
            lambda rows: {"1": {**rows["1"], "answer_type": "x"}},
            "MathVista's kinds",
        ),
        ("mathvista", "annot_testmini.json", lambda rows: {"2": {**rows["2"], "precision": "x"}}, "MathVista's kinds"),
        ("mathvista", "annot_testmini.json", lambda rows: {"5": {**rows["5"], "choices": [1]}}, "MathVista's kinds"),
        ("mathvista", "annot_testmini.json", lambda rows: {"5": {**rows["5"], "choices": None}}, "MathVista's kinds"),
        ("mathvista", "annot_testmini.json", lambda rows: {"5": {**rows["5"], "choices": 7}}, "choices is 7, expected"),
        ("chartqa", "test_human.json", lambda rows: {}, "holds dict, expected a list of objects"),
        ("chartqa", "test_human.json", lambda rows: [{"query": "a"}], "row 1 has no imgname, label"),
        ("chartqa", "test_human.json", lambda rows: [{**rows[0], "label": 14}], "label is 14, expected a text"),
        ("docvqa", "val_v1.0_withQT.json", lambda rows: {"data": [{**rows["data"][0], "questionId": 1.5}]}, "is 1.5"),
        ("docvqa", "val_v1.0_withQT.json", lambda rows: [], "holds NoneType, expected a list of objects"),
        (
            "docvqa",
            "val_v1.0_withQT.json",
            lambda rows: {"data": [{**rows["data"][0], "answers": []}]},
            "expected texts",
        ),
        (
            "docvqa",
            "val_v1.0_withQT.json",
            lambda rows: {"data": [{**rows["data"][0], "answers": "a"}]},
            "answers is 'a'",
        ),
    ],
)
def test_hostile_files(name: str, file: str, edit: Callable[[Any], Any], said: str, tmp_path: Path) -> None:
    LAYOUTS[name]["own"](tmp_path)
    change(tmp_path, file, edit)
    with pytest.raises(EvaluationError) as found:
        list(make_task(name).read(tmp_path))
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_half_of_chartqa_is_refused(tmp_path: Path) -> None:
    LAYOUTS["chartqa"]["own"](tmp_path)
    next(tmp_path.rglob("test_augmented.json")).unlink()
    with pytest.raises(EvaluationError, match=r"has no test_augmented.json, expected it beside the other"):
        list(make_task("chartqa").read(tmp_path))


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        ("mmmu", {"options": "__import__('os')"}, "expected a list of texts"),
        ("mmmu", {"options": "[1, 2]"}, "expected a list of texts"),
        ("mmmu", {"options": None}, "expected a list of texts"),
        ("mmmu", {"options": "(" * 10_000}, "expected a list of texts"),
        ("mmmu", {"question": None}, "question is None, expected a text"),
        ("mmmu", {"question": "Is it <image 5>?"}, "shows image_5, which its row does not have"),
        ("mmmu", {"id": "validation_1"}, "expected one such as validation_Art_1"),
        ("mmmu", {"id": "test_Art_1"}, "has no data of MMMU: expected Parquet files with the columns id, question"),
        ("ai2d", {"answer": "4"}, "has answer '4', expected 0 to 3"),
        ("ai2d", {"answer": "C"}, "has answer 'C', expected 0 to 3"),
        ("ai2d", {"options": None}, "options is None, expected a list"),
        ("chartqa", {"type": "some"}, "type is 'some', expected human_test or augmented_test"),
        ("realworldqa", {"answer": None}, "answer is None, expected a text"),
        ("docvqa", {"data_split": "val", "answers": None}, "answers is None, expected a list"),
        ("mathvista", {"pid": None}, "pid is None, expected a text"),
    ],
)
def test_hostile_parquet(name: str, edit: dict[str, Any], said: str, tmp_path: Path) -> None:
    LAYOUTS[name]["hub"](tmp_path / "good")
    found = next(path for path in (tmp_path / "good").rglob(f"{settings_of(name).split}-*.parquet"))
    row = {**pyarrow.parquet.read_table(found).to_pylist()[0], **edit}
    if name == "mmmu":
        row["image_2"] = shown(0)
    (tmp_path / "bad").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "bad" / "some.parquet")
    with pytest.raises(EvaluationError) as error:
        list(make_task(name).read(tmp_path / "bad"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_data(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(EvaluationError) as found:
        list(make_task(name).read(tmp_path))
    assert "Parquet files with the columns" in str(found.value)
    assert make_task(name).files in str(found.value)
