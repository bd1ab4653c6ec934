"""What stands in the table is what is read, asked, answered, counted and reported: a setting that is turned shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_benchmarks
import drawn_charts_and_exams
import pytest
from stub_server import Response, serving

import flashsloth
from flashsloth.evaluation.answerer import FlashSlothAnswerer, Reply
from flashsloth.evaluation.item import Item, Prediction
from flashsloth.evaluation.predictions import JUDGE
from flashsloth.evaluation.report import make_report
from flashsloth.evaluation.scoring import score
from flashsloth.evaluation.server_answerer import ServerAnswerer
from flashsloth.evaluation.settings import TABLE, TASKS, TaskSettings, settings_of
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import CLASSES

LAYOUTS = {**drawn_benchmarks.LAYOUTS, **drawn_charts_and_exams.LAYOUTS}
OTHER_STYLES = {
    "mme": "stripped",
    "mmbench": "a line each",
    "mathvista": "cot",
    "textvqa": "question and OCR tokens",
}
ANOTHER = "another"
ONE_RULE = ("mmbench", "mmvet", "seedbench", "textvqa", "ai2d", "chartqa", "docvqa")
"""Benchmarks with one way to count: another is refused."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each benchmark, as the hub has it, beside another split and another configuration."""
    made = {name: tmp_path_factory.mktemp(name) for name in TASKS}
    for name, folder in made.items():
        LAYOUTS[name]["hub"](folder)
    another = {"id": "9", "imageId": "n0", "question": "Is it another?", "answer": "no"}
    drawn_benchmarks.hub(made["gqa"], "gqa", [another], {}, config=ANOTHER)
    return made


@pytest.fixture(scope="module")
def sloth() -> flashsloth.FlashSloth:
    return flashsloth.load(device="cpu")


def asked(settings: TaskSettings, folder: Path) -> list[tuple[Any, ...]] | str:
    """What a model would be asked, or why nothing."""
    try:
        items = list(CLASSES[settings.task](settings).read(folder))
    except EvaluationError as error:
        return str(error)
    return [(item.id, item.prompt, item.parts, len(item.pictures)) for item in items]


def turned_questions() -> list[tuple[str, dict[str, Any]]]:
    """(task, what is turned) of all that decides what is asked."""
    found: list[tuple[str, dict[str, Any]]] = []
    for row in TABLE:
        found += [(row.task, {"before": "First. "}), (row.task, {"after": " Last."}), (row.task, {"split": "train"})]
        if row.config is not None:
            found.append((row.task, {"config": ANOTHER if row.task == "gqa" else "other"}))
        if row.after_open is not None:
            found.append((row.task, {"after_open": " Last."}))
        if row.style:
            found.append((row.task, {"style": OTHER_STYLES[row.task]}))
    return [*found, ("mmmu", {"pictures_first": False})]


@pytest.mark.parametrize(("task", "turned"), turned_questions())
def test_what_is_asked(task: str, turned: dict[str, Any], folders: dict[str, Path]) -> None:
    row = settings_of(task)
    before = asked(row, folders[task])
    assert isinstance(before, list)
    after = asked(replace(row, **turned), folders[task])
    assert after != before
    if "split" not in turned and "config" not in turned:  # of which another may have no answers
        assert isinstance(after, list)


def first_item(task: str, folder: Path) -> Item:
    return next(iter(CLASSES[task](settings_of(task)).read(folder)))


@pytest.mark.parametrize("task", TASKS)
def test_a_server_is_told_the_limits(task: str, folders: dict[str, Path]) -> None:
    item = first_item(task, folders[task])
    drawn = replace(settings_of(task), max_tokens=77, temperature=0.4, top_p=0.6)
    with serving(lambda text, number: Response("Yes")) as stub:
        for settings in (settings_of(task), drawn):
            [_] = ServerAnswerer(stub.url, "m").answers([item], settings, 5)
    first, second = stub.requests
    row = settings_of(task)
    assert (first["max_tokens"], first["temperature"]) == (row.max_tokens, row.temperature)
    assert first.get("top_p") == (row.top_p if row.temperature else None)
    assert [second[name] for name in ("max_tokens", "temperature", "top_p", "seed")] == [77, 0.4, 0.6, 5]


def test_a_flashsloth_keeps_the_limits(sloth: flashsloth.FlashSloth, folders: dict[str, Path]) -> None:
    item = first_item("pope", folders["pope"])

    def answer(seed: int = 0, **changed: Any) -> Reply:
        [(_, reply)] = FlashSlothAnswerer(sloth, "nano").answers([item], replace(settings_of("pope"), **changed), seed)
        assert isinstance(reply, Reply)
        return reply

    greedy = answer()
    assert answer(max_tokens=1).tokens == 1
    assert greedy.tokens is not None
    assert greedy.tokens > 1
    assert len({answer(seed, temperature=50.0, max_tokens=8).text for seed in range(3)}) == 3
    assert {answer(seed, temperature=50.0, top_p=1e-6).text for seed in range(3)} == {greedy.text}


def predictions(task: str, folder: Path, ending: str) -> list[Prediction]:
    """Answers that are right but for what stands behind them."""
    items = list(CLASSES[task](settings_of(task)).read(folder))
    made = []
    for item in items:
        truth = item.truth.get("answer", item.truth.get("label"))
        right = str(truth[0] if isinstance(truth, list) else truth)
        answer = right[:1] if ending == "first letter" else f"{right}{ending}"
        fields = item.id, item.prompt, item.truth, item.group, item.picture
        made.append(Prediction(*fields, answer, judgements=("0.5",) if task == "mmvet" else ()))
    return made


def figures(settings: TaskSettings, given: list[Prediction]) -> dict[str, float]:
    return {one.name: one.value for one in score(CLASSES[settings.task](settings), given)[0].figures}


@pytest.mark.parametrize(
    ("task", "ending", "scorer"),
    [
        ("pope", ", it is", "yes or no somewhere"),
        ("mme", "first letter", "MME's own"),
        ("gqa", "!", "GQA's own"),
        ("scienceqa", ".", "begins with the letter"),
        ("realworldqa", ". So it is", "letter or equal"),
    ],
)
def test_what_counts_as_right(task: str, ending: str, scorer: str, folders: dict[str, Path]) -> None:
    given = predictions(task, folders[task], ending)
    row = settings_of(task)
    assert figures(row, given) != figures(replace(row, scorer=scorer), given)


@pytest.mark.parametrize("task", ONE_RULE)
def test_rules_that_a_benchmark_does_not_have(task: str) -> None:
    with pytest.raises(EvaluationError, match="cannot be scored by 'others'"):
        CLASSES[task](replace(settings_of(task), scorer="others"))


@pytest.mark.parametrize("task", TASKS)
def test_which_figure_is_the_score(task: str, folders: dict[str, Path]) -> None:
    row = settings_of(task)
    given = predictions(task, folders[task], "")
    first, *others = figures(row, given)
    assert first == row.metric
    for name in others:
        assert next(iter(figures(replace(row, metric=name), given))) == name
    with pytest.raises(EvaluationError, match="has no figure 'others'"):
        figures(replace(row, metric="others"), given)


@pytest.mark.parametrize("task", TASKS)
def test_what_a_report_says(task: str, folders: dict[str, Path]) -> None:
    row = settings_of(task)
    given = predictions(task, folders[task], "")
    summary, _ = score(CLASSES[task](row), given)
    summary = replace(summary, judged=1)
    header = {"model": {"name": "m"}, JUDGE: {"model": row.judge}}
    plain = make_report(header, row, summary, given).to_dict()
    for name, value in {
        "title": "Another",
        "size": row.size + 1,
        "paper": row.paper + 1,
        "preset": "llava",
        "not_known": ("something else",),
        **({} if row.judge is None else {"judge": "another"}),
    }.items():
        assert make_report(header, replace(row, **{name: value}), summary, given).to_dict() != plain, name
    hd = {**header, "model": {"name": "m", "views": 5}}
    assert make_report(hd, row, summary, given).paper == row.paper_hd
