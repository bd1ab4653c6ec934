"""Every layout of every benchmark gives the same questions; their prompts and scores are the recorded ones."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_benchmarks
import groundtruth
import pytest
from drawn_benchmarks import LAYOUTS, picture, put
from PIL import Image

import flashsloth
from flashsloth.evaluation.answerer import FlashSlothAnswerer, Reply
from flashsloth.evaluation.item import Item, Prediction
from flashsloth.evaluation.scoring import score
from flashsloth.evaluation.settings import LLAVA, LMMS, PAPER, SettingsError, settings_of
from flashsloth.evaluation.task import EvaluationError, Task
from flashsloth.evaluation.tasks import CLASSES, make_task
from flashsloth.evaluation.text_answers import vqa_accuracy, vqa_text

DRAWN = [(task, layout) for task, layouts in LAYOUTS.items() for layout in layouts]
GOLDEN = {PAPER: "paper", LMMS: "lmms_eval_0.7.3"}
GOLDEN_SCORES = {
    "scienceqa": ("scienceqa", "B"),
    "seed": ("seedbench", "A"),
    "mme": ("mme", "yes"),
    "pope": ("pope", "yes"),
}


ASKED = 4
"""Of a drawn benchmark, by a model."""


@pytest.fixture(scope="module")
def sloth() -> flashsloth.FlashSloth:
    return flashsloth.load(device="cpu")


def read(task: Task, folder: Path) -> list[Item]:
    return list(task.read(folder))


def read_layout(folder: Path, name: str, layout: str, preset: str = PAPER) -> list[Item]:
    LAYOUTS[name][layout](folder)
    return read(make_task(name, preset), folder)


def content(item: Item) -> bytes:
    [shown] = item.pictures
    return shown() if callable(shown) else shown.read_bytes()


def presets(name: str) -> list[str]:
    found = []
    for preset in (PAPER, LMMS, LLAVA):
        try:
            settings_of(name, preset)
        except SettingsError:
            continue
        found.append(preset)
    return found


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name in LAYOUTS for preset in presets(name)])
def test_layouts_are_the_same_questions(name: str, preset: str, tmp_path: Path) -> None:
    first, *others = [read_layout(tmp_path / layout, name, layout, preset) for layout in LAYOUTS[name]]
    assert first
    for other in others:
        assert [replace(item, pictures=()) for item in other] == [replace(item, pictures=()) for item in first]
        assert [content(item) for item in other] == [content(item) for item in first]
    assert len({item.id for item in first}) == len(first)
    for item in first:
        assert Image.open(io.BytesIO(content(item))).size == (40, 30)
        assert content(item) in [picture(number) for number in range(2)]  # the third is another split's


@pytest.mark.parametrize(("name", "layout"), DRAWN)
def test_right_and_wrong_answers(name: str, layout: str, tmp_path: Path) -> None:
    items = read_layout(tmp_path, name, layout, LLAVA if layout == "llava" and name != "scienceqa" else PAPER)
    task = make_task(name)
    for answer_of, expected in ((right_answer, 1.0), (lambda item: "?!", 0.0)):
        predictions = [
            Prediction(item.id, item.prompt, item.truth, item.group, item.picture, answer_of(item), judgements=("E",))
            for item in items
        ]
        summary, scored = score(task, predictions)
        assert summary.items == len(items)
        assert {one.value for one in scored} == {expected}
        assert summary.score.value == expected * (2800 if name == "mme" else 100)


def right_answer(item: Item) -> str:
    truth = item.truth.get("answer", item.truth.get("label"))
    return str(truth if truth is not None else item.truth["answers"][-1])


@groundtruth.needed
@pytest.mark.parametrize("preset", GOLDEN)
@pytest.mark.parametrize("name", LAYOUTS)
def test_prompts_are_the_recorded_ones(name: str, preset: str, tmp_path: Path) -> None:
    recorded = groundtruth.whole(f"golden/prompts_and_settings_{GOLDEN[preset]}.json")
    wanted = recorded[settings_of(name, preset).lmms_task]["prompts"]
    layout = next(iter(LAYOUTS[name]))
    assert set(wanted) <= {item.prompt for item in read_layout(tmp_path, name, layout, preset)}


def test_llavas_prompts(tmp_path: Path) -> None:
    assert read_layout(tmp_path / "mmbench", "mmbench", "own", LLAVA)[1].prompt == (
        "Look.\nWhat is it?\nA. a cat\nB. a dog\nC. a cow\nD. a hen\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert read_layout(tmp_path / "textvqa", "textvqa", "llava", LLAVA)[0].prompt == (
        "What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL\n"
        "Answer the question using a single word or phrase."
    )
    assert read_layout(tmp_path / "mme", "mme", "own", LLAVA)[1].prompt == (
        "Is this a cat?\nAnswer the question using a single word or phrase."
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_stands_round_a_question_is_its_settings(name: str, tmp_path: Path) -> None:
    layout = next(iter(LAYOUTS[name]))
    LAYOUTS[name][layout](tmp_path)
    changed = replace(settings_of(name), before="First. ", after=" Last.")
    for item in CLASSES[name](changed).read(tmp_path):
        assert item.prompt.startswith("First. ")
        assert item.prompt.endswith(" Last.")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_score_has_its_settings_name(name: str, tmp_path: Path) -> None:
    items = read_layout(tmp_path, name, next(iter(LAYOUTS[name])))
    for preset in presets(name):
        summary, _ = score(make_task(name, preset), [predict(item, "yes") for item in items])
        assert summary.score.name == settings_of(name, preset).metric


def predict(item: Item, answer: str, *judgements: str) -> Prediction:
    return Prediction(item.id, item.prompt, item.truth, item.group, item.picture, answer, judgements=judgements)


@groundtruth.needed
@pytest.mark.parametrize("preset", GOLDEN)
def test_scores_are_the_recorded_ones(preset: str) -> None:
    counted = 0
    for key, expected in groundtruth.whole(f"golden/scores_{GOLDEN[preset]}.json").items():
        kind, *said = key.split("|")
        if kind == "vqa":
            assert vqa_text(said[0]) == expected, key
        elif kind == "textvqa":
            people = ["dakota"] * int(said[1]) + ["other"] * (10 - int(said[1]))
            assert vqa_accuracy(said[0], people) == pytest.approx(expected), key
        elif kind in GOLDEN_SCORES:
            name, truth = GOLDEN_SCORES[kind]
            assert value_of(make_task(name, preset), said[0], truth) == expected, key
        elif kind == "pope_yes_ratio":
            denied = [pope_prediction(label, "no") for label in ("yes", "no")]
            figures = {one.name: one.value for one in score(make_task("pope", preset), denied)[0].figures}
            assert figures["yes ratio"] / 100 == expected
        else:
            continue
        counted += 1
    assert counted == 61


def value_of(task: Task, answer: str, truth: str) -> float:
    """1 if an answer is right; of a pair, whose other answer is right, if both are."""
    name = task.settings.task
    truths: dict[str, Any] = {
        "answer": truth,
        "label": truth,
        "category": "color" if name == "mme" else "random",
        "type": "image",
    }
    one = Prediction("1", "", truths, "1", "1", answer)
    group = [one] if name != "mme" else [one, replace(one, truth={**truths, "answer": "no"}, answer="no")]
    value = task.score(group).value
    assert value is not None
    return float(value == 1)


def pope_prediction(label: str, answer: str) -> Prediction:
    return Prediction(label, "", {"category": "random", "label": label}, label, "1", answer)


@groundtruth.needed
def test_texts_are_normalised_as_recorded() -> None:
    pairs = groundtruth.whole("textvqa/normalised.json")
    assert len(pairs) == 8457
    assert [vqa_text(text) for text, _ in pairs] == [expected for _, expected in pairs]


def test_published_oddities_of_the_normaliser() -> None:
    assert vqa_text("A") == ""
    assert vqa_text("a-b") == "b"
    assert vqa_text("couldnt've y'allll somebody'd") == "couldn't've y'all'll somebodyd"
    assert vqa_text("a." * 40).count(".") == 8  # 32 full stops are removed, and no more


@pytest.mark.parametrize(
    ("name", "truth", "answer", "values"),
    [
        ("pope", "yes", "Yes, there is", (0.0, 0.0, 1.0)),
        ("pope", "no", "There is not any", (0.0, 0.0, 1.0)),
        ("pope", "no", "No, none", (0.0, 0.0, 1.0)),
        ("pope", "no", "Nothing. It is not", (0.0, 0.0, 0.0)),
        ("mme", "yes", "Y", (1.0, 1.0, 0.0)),
        ("mme", "yes", "a yes", (0.0, 0.0, 0.0)),
        ("mme", "yes", " yes", (1.0, 1.0, 1.0)),
        ("mme", "yes", "y.e.s", (1.0, 1.0, 0.0)),
        ("gqa", "yes", "Yes!", (1.0, 1.0, 0.0)),
        ("gqa", "t-shirt", "t shirt", (0.0, 0.0, 0.0)),
        ("gqa", "t-shirt", "T-shirt.", (1.0, 1.0, 1.0)),
        ("scienceqa", "B", "B. dog", (0.0, 1.0)),
    ],
)
def test_the_scorer_decides(name: str, truth: str, answer: str, values: tuple[float, ...]) -> None:
    """By preset: paper, lmms-0.7.3, llava."""
    assert tuple(value_of(make_task(name, preset), answer, truth) for preset in presets(name)) == values


def mmbench_pair(*answers: str, judgements: tuple[str, ...] = ()) -> list[Prediction]:
    truth = {"answer": "B", "options": {"A": "a cat", "B": "a dog"}, "question": "What is it"}
    return [
        Prediction(str(7 + 1_000_000 * turn), "", truth, "7", "1", answer, judgements=judgements)
        for turn, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("B", 1.0), ("B.", 1.0), ("(B)", 1.0), ("The answer is B", 1.0), ("A", 0.0), ("It is a dog", 1.0), ("E", 0.0),
        ("A dog runs here B", 1.0), ("A puppy runs here", None), ("A puppy runs", 0.0), ("A B", None),
        ("A cat, a dog", None), ("", None), ("b", None),
    ],
)  # fmt: skip
def test_mmbench_rules(answer: str, value: float | None) -> None:
    assert make_task("mmbench").score(mmbench_pair("B", answer)).value == value


def test_mmbench_is_judged_where_rules_fail() -> None:
    task = make_task("mmbench")
    unknown = mmbench_pair("B", "a puppy")
    assert task.judge_request(unknown[0]) is None
    request = task.judge_request(unknown[1])
    assert request is not None
    assert request.text.endswith(
        "Example 3: \nQuestion: What is it?\nOptions: There are several options: \nA. a cat\nB. a dog\n\n"
        "Answer: a puppy\nYour output: "
    )
    assert [request.read(reply) for reply in ("B", " B.\n", "E")] == ["B", "B", "E"]
    assert [request.read(reply) for reply in ("It is B", "b", "", "F", "AB")] == [None] * 5
    summary, [scored] = score(task, unknown)
    assert scored.value is None
    assert summary.unjudged == 1
    assert (summary.score.low, summary.score.high) == (0.0, 100.0)
    for judgement, value in (("B", 1.0), ("A", 0.0), ("E", 0.0)):
        assert task.score(mmbench_pair("B", "a puppy", judgements=(judgement,))).value == value
    assert task.score(mmbench_pair("A", "a puppy")).value == 0.0  # one turn is wrong: no judge is needed


def test_mme_counts_pairs() -> None:
    task = make_task("mme")
    truth = {"category": "color", "answer": "yes"}
    pairs = [
        Prediction(f"{picture}/{place}", "", truth, str(picture), str(picture), answer)
        for picture, answers in enumerate((("yes", "yes"), ("yes", "no")))
        for place, answer in enumerate(answers)
    ]
    figures = {one.name: one.value for one in score(task, pairs)[0].figures}
    assert figures["color"] == figures["perception"] == figures["total"] == 75 + 50
    with pytest.raises(EvaluationError, match="counts pairs"):
        score(task, pairs[:3])


def test_pope_answers_that_are_neither() -> None:
    """lmms-eval's recall leaves them out, and its accuracy does not."""
    said = [("yes", "yes"), ("yes", "maybe"), ("no", "no"), ("no", "yes")]
    predictions = [
        replace(pope_prediction(label, answer), id=f"{place}", group=f"{place}")
        for place, (label, answer) in enumerate(said)
    ]
    figures = {one.name: one.value for one in score(make_task("pope"), predictions)[0].figures}
    assert figures["accuracy"] == 50
    assert figures["precision"] == 50
    assert figures["recall"] == 100
    assert figures["f1"] == figures["mean f1"] == pytest.approx(200 / 3)


def test_mmbench_pictures_are_larger_than_a_field_of_csv(tmp_path: Path) -> None:
    large = bytes(200_000)
    put(tmp_path / "mmbench_dev_20230712.tsv", drawn_benchmarks.mmbench_table(lambda number: large))
    assert {content(item) for item in read(make_task("mmbench"), tmp_path)} == {large}


def test_a_repeated_answer_is_refused() -> None:
    with pytest.raises(EvaluationError, match="'yes' has 2 answers, expected one"):
        score(make_task("pope"), [pope_prediction("yes", "no"), pope_prediction("yes", "yes")])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("pope", {"label": "Yes"}),
        ("pope", {"category": "rare"}),
        ("mme", {"answer": "Yes"}),
        ("mme", {"category": "colour"}),
        ("mmbench", {"answer": "E"}),
        ("mmbench", {"options": {"A": "a cat", "B": 2}}),
        ("seedbench", {"type": "text"}),
        ("seedbench", {"answer": ""}),
        ("scienceqa", {"type": "video"}),
        ("scienceqa", {"answer": "b"}),
        ("textvqa", {"answers": ["one"]}),
        ("textvqa", {"answers": [1] * 10}),
        ("gqa", {"answer": 1}),
    ],
)
def test_truths_that_no_figure_counts_are_refused(name: str, wrong: dict[str, Any], tmp_path: Path) -> None:
    items = read_layout(tmp_path, name, next(iter(LAYOUTS[name])))
    predictions = [predict(item, "A") for item in items]
    predictions[0] = replace(predictions[0], truth={**items[0].truth, **wrong})
    with pytest.raises(EvaluationError, match="the truth of"):
        score(make_task(name), predictions)


def test_answers_to_something_else_are_refused() -> None:
    with pytest.raises(EvaluationError, match="are these answers to GQA"):
        score(make_task("gqa"), [pope_prediction("yes", "no")])


@groundtruth.needed
def test_llavas_science_questions_are_read(tmp_path: Path) -> None:
    """All 2,017 with a picture, asked as LLaVA asked them."""
    drawn_benchmarks.put(tmp_path / "llava_test_CQM-A.json", groundtruth.whole("scienceqa/llava_test_CQM-A.json"))
    for row in groundtruth.whole("scienceqa/llava_test_CQM-A.json"):
        if "image" in row:
            drawn_benchmarks.put(tmp_path / "images" / "test" / row["image"], row["id"].encode())
    items = read(make_task("scienceqa"), tmp_path)
    output = groundtruth.whole("scienceqa/llava-v1.5-13b_output.jsonl")
    asked = [
        (row["question"].removeprefix("<image>\n"), row["ground_truth"])
        for row in [*output["correct"], *output["incorrect"]]
        if row["is_multimodal"]
    ]
    assert len(items) == 2017
    assert sorted((item.prompt, item.truth["answer"]) for item in items) == sorted(asked)


@pytest.mark.parametrize(("name", "layout"), DRAWN)
def test_a_model_sees_every_layouts_pictures(
    name: str, layout: str, tmp_path: Path, sloth: flashsloth.FlashSloth
) -> None:
    items = read_layout(tmp_path, name, layout)[:ASKED]
    settings = replace(settings_of(name), max_tokens=2)
    answers = dict(FlashSlothAnswerer(sloth, "digest").answers(items, settings, seed=0))
    replies = [answers[place] for place in range(len(items))]
    assert all(isinstance(one, Reply) for one in replies), replies
    predictions = [predict(item, answers[place].text, "E") for place, item in enumerate(items)]
    assert score(make_task(name), predictions)[0].items == len(items)
