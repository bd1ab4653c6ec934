"""Two runs on the same questions: the difference, its paired interval, what changed; and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pope_runs import draw_pope, right, write_run, wrong

from flashsloth.evaluation.compare import CHANGED, LOST, SAME, WON, Comparison, compare
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.predictions import PREDICTIONS
from flashsloth.evaluation.scoring import DRAWS, SEED
from flashsloth.evaluation.task import EvaluationError

LOSES, WINS, CHANGES = (3, 4, 5), (8,), (0, 1)
"""Questions that the second run answers worse, better, and as wrongly in other words."""


def first(place: int, item: Item) -> str:
    return wrong(place, item) if place in WINS else "maybe" if place in CHANGES else right(place, item)


def second(place: int, item: Item) -> str:
    return wrong(place, item) if place in (*LOSES, *CHANGES) else right(place, item)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return draw_pope(tmp_path_factory.mktemp("pope"))


@pytest.fixture
def runs(tmp_path: Path, items: list[Item]) -> tuple[Path, Path]:
    return write_run(tmp_path / "a", items, first), write_run(tmp_path / "b", items, second, "mine")


def test_what_became_of_each_question(runs: tuple[Path, Path], items: list[Item]) -> None:
    found = compare(*runs)
    outcomes = [pair.outcome for pair in found.pairs]
    assert [place for place, one in enumerate(outcomes) if one == LOST] == [*LOSES]
    assert [place for place, one in enumerate(outcomes) if one == WON] == [*WINS]
    assert [place for place, one in enumerate(outcomes) if one == CHANGED] == [*CHANGES]
    assert found.counts == {LOST: 3, WON: 1, CHANGED: 2, SAME: len(items) - 6}
    assert [pair.outcome for pair in found.ordered][:7] == [LOST] * 3 + [WON] + [CHANGED] * 2 + [SAME]
    assert (found.before.name, found.after.name, found.pictures) == ("nano", "mine", 4)


def test_the_interval_is_of_the_same_pictures_for_both(runs: tuple[Path, Path], items: list[Item]) -> None:
    found = compare(*runs)
    score = found.score
    count = len(items)
    assert score.name == "accuracy"
    assert score.before == pytest.approx(100 * (count - 3) / count)
    assert score.value == pytest.approx(100 * -2 / count) == score.after - score.before
    names = sorted({item.picture for item in items})
    lost = dict.fromkeys(names, 0)
    for place in (*LOSES, *WINS):
        lost[items[place].picture] += 1 if place in WINS else -1
    each = np.array([lost[name] for name in names])
    asked = count // len(names)
    generator = np.random.default_rng(SEED)
    drawn = [each[generator.integers(len(each), size=len(each))].mean() * 100 / asked for _ in range(DRAWS)]
    assert (score.low, score.high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))))
    assert score.may_be_chance
    assert {"f1", "f1, random"} <= {one.name for one in found.differences[1:]}


def test_the_same_run_is_the_same(runs: tuple[Path, Path], items: list[Item]) -> None:
    found = compare(runs[0], runs[0] / PREDICTIONS)
    assert all((one.value, one.low, one.high) == (0, 0, 0) for one in found.differences)
    assert found.counts == {LOST: 0, WON: 0, CHANGED: 0, SAME: len(items)}


def test_what_one_picture_costs_is_no_chance_where_all_lose_it(tmp_path: Path, items: list[Item]) -> None:
    def loses_one_of_each(place: int, item: Item) -> str:
        return wrong(place, item) if item.id.startswith("random") and "dog" in item.id else right(place, item)

    found = compare(write_run(tmp_path / "a", items, right), write_run(tmp_path / "b", items, loses_one_of_each))
    assert found.score.low == found.score.high == found.score.value < 0
    assert not found.score.may_be_chance


def test_the_order_of_answers_is_no_matter(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    header, *lines = (runs[1] / PREDICTIONS).read_text().splitlines()
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join([header, *reversed(lines)]) + "\n")
    assert compare(runs[0], other).to_dict()["figures"] == compare(*runs).to_dict()["figures"]


def test_json_holds_what_changed(runs: tuple[Path, Path], items: list[Item]) -> None:
    found = json.loads(json.dumps(compare(*runs).to_dict()))
    assert found["counts"] == {"lost": 3, "won": 1, "changed": 2, "same": len(items) - 6, "unjudged": 0}
    assert len(found["changed"]) == 6
    lost = found["changed"][CHANGES[-1] + 1]
    assert lost["ids"] == [items[LOSES[0]].id]
    assert (lost["outcome"], lost["before"]["value"], lost["after"]["value"]) == ("lost", 1, 0)
    assert lost["before"]["answers"] == [right(0, items[LOSES[0]])]


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (({"name": "nano"}, {"name": "big"}), ("nano", "big")),
        (
            ({"name": "nano", "quantize": None, "digest": "1"}, {"name": "nano", "quantize": "int8", "digest": "2"}),
            ("nano (quantize none)", "nano (quantize int8)"),
        ),
        (({"name": "nano"}, {"name": "nano"}), ("a/predictions.jsonl", "b/predictions.jsonl")),
        (({}, "?"), ("a", "b")),
    ],
)
def test_names(tmp_path: Path, items: list[Item], models: tuple[Any, Any], names: tuple[str, str]) -> None:
    found = compare(
        *(write_run(tmp_path / one, items, right, model=model) for one, model in zip("ab", models, strict=True))
    )
    assert found.before.name.endswith(names[0])
    assert found.after.name.endswith(names[1])


def changed(items: list[Item], **fields: Any) -> list[Item]:
    return [dataclasses.replace(items[0], **fields), *items[1:]]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"prompt": "Is it?"},
            r"prompt of 'random/.*\.\.\. is 'Is there a dog .* and 'Is it\?' in .*expected the same",
        ),
        ({"truth": {"category": "random", "label": "maybe"}}, r"truth of 'random/"),
        ({"picture": "another"}, "picture of 'random/"),
        ({"group": "another"}, "group of 'random/"),
        ({"id": "another"}, r"b/predictions.jsonl lacks, such as 'random/"),
    ],
)
def test_other_questions_are_refused(tmp_path: Path, items: list[Item], fields: dict[str, Any], reason: str) -> None:
    other = changed(items, **fields)
    if "truth" in fields:
        other = [dataclasses.replace(other[0], truth={"category": "random", "label": "yes"}), *items[1:]]
    a, b = write_run(tmp_path / "a", items, right), write_run(tmp_path / "b", other, lambda *_: "yes")
    with pytest.raises(EvaluationError, match=reason):
        compare(a, b)


def test_fewer_questions_are_refused_whichever_has_them(tmp_path: Path, items: list[Item]) -> None:
    a, b = write_run(tmp_path / "a", items, right), write_run(tmp_path / "b", items[:-2], right)
    for paths in ((a, b), (b, a)):
        with pytest.raises(EvaluationError, match=r"a/predictions\.jsonl has 2 of 36 questions that .*b/pred.* lacks"):
            compare(*paths)


@pytest.mark.parametrize(("name", "value"), [("task", "mme"), ("preset", "llava")])
def test_other_rules_are_refused(tmp_path: Path, items: list[Item], name: str, value: str) -> None:
    a, b = write_run(tmp_path / "a", items, right), write_run(tmp_path / "b", items, right, **{name: value})
    with pytest.raises(EvaluationError, match=rf"is of {name} .* and .* of {value}: expected the same of both"):
        compare(a, b)


def test_a_folder_without_predictions_is_refused(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    with pytest.raises(EvaluationError, match=r"predictions\.jsonl cannot be read"):
        compare(runs[0], tmp_path)


def test_a_comparison_is_whole_without_its_files(runs: tuple[Path, Path]) -> None:
    found = compare(*runs)
    for run in runs:
        (run / PREDICTIONS).unlink()
    assert isinstance(found, Comparison)
    assert found.to_dict()["questions"] == 36
