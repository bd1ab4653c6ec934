"""Counting right answers: what counts as right, how sure one can be, and that a report can be repeated."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import tiny

from flashsloth.evaluation.tallies import READING_ANY_CASE, is_right, normalised, wilson_interval
from flashsloth.evaluation.world_qa import evaluate_world
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.world import KINDS, Question, World
from flashsloth.world.vocabulary import UNKNOWN

COUNT, SEED = 12, 5


class Oracle:
    """Answers in a model's place, by looking the true answer up and saying it in its own way."""

    name = "oracle"

    def __init__(self, say: Callable[[Question], str]) -> None:
        world = World(seed=SEED, split="test", level=3)
        self._questions = [question for index in range(COUNT) for question in world.sample(index).questions]
        self._say = say

    def answer_as_ready(self, pairs: Iterable[tuple[Any, str]], **options: Any) -> Iterator[tuple[int, str]]:
        for place, ((_, text), question) in enumerate(zip(pairs, self._questions, strict=True)):
            assert text == question.question
            yield place, self._say(question)


def report_of(say: Callable[[Question], str]) -> Any:
    return evaluate_world(Oracle(say), count=COUNT, seed=SEED)  # type: ignore[arg-type]


def test_the_truth_is_all_right() -> None:
    progress: list[int] = []
    report = evaluate_world(Oracle(lambda q: q.answer), count=COUNT, seed=SEED, progress=progress.append)  # type: ignore[arg-type]
    assert [score.name for score in report.kinds] == [kind for kind in KINDS if kind in {s.name for s in report.kinds}]
    assert all(score.share == 1.0 for score in [*report.kinds, *report.also, report.total])
    assert report.total.asked == sum(score.asked for score in report.kinds)
    assert sum(progress) == report.pictures == COUNT
    assert all(0 < score.majority <= 1 for score in report.kinds)


def test_manners_do_not_count_but_the_case_of_what_is_read_does() -> None:
    report = report_of(lambda q: f" {q.answer.swapcase()}.")
    scores = {score.name: score for score in [*report.kinds, *report.also]}
    assert scores["reading"].share < 1.0
    assert scores[READING_ANY_CASE].share == 1.0
    assert all(score.share == 1.0 for name, score in scores.items() if name != "reading")


def test_what_cannot_be_told_is_a_kind_of_its_own() -> None:
    tokenizer = tiny.make_tokenizer()
    config = tiny.make_config(tokenizer)
    sloth = FlashSloth(tiny.make_model(config, attention="sdpa"), tiny.make_processor(tokenizer, config), "tiny")
    report = evaluate_world(sloth, count=3, seed=1, unknown=0.9)
    assert "unknown" in {score.name for score in report.kinds}
    assert report.to_dict()["unknown"] == 0.9


def test_nonsense_is_wrong() -> None:
    assert report_of(lambda q: "sloth").total.right == 0


@pytest.mark.parametrize(
    ("answer", "same"),
    [("A red Circle.", "red circle"), ("grey", "gray"), ("  the  star ", "star"), ("A", "a"), ("'Yes'!", "yes")],
)
def test_normalised(answer: str, same: str) -> None:
    assert normalised(answer) == same


def test_reading_is_letter_by_letter() -> None:
    question = Question("reading", "What does it say?", "Cat")
    assert is_right(question, '"Cat".')
    assert not is_right(question, "cat")
    assert not is_right(question, "a Cat")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("I can't tell.", True),
        ("I can\u2019t tell", True),
        ("Unknown", True),
        ("red", False),
        ("", False),
        ("tell", False),
    ],
)
def test_it_can_be_said_in_several_ways_that_nothing_can_be_told(answer: str, right: bool) -> None:
    assert is_right(Question("unknown", "What color is the star?", UNKNOWN), answer) is right


def test_wilson_interval() -> None:
    low, high = wilson_interval(8, 10)
    assert math.isclose(low, 0.4902, abs_tol=1e-4)  # a textbook's example
    assert math.isclose(high, 0.9433, abs_tol=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert math.isclose(wilson_interval(0, 5)[0], 0.0, abs_tol=1e-12)
    assert math.isclose(wilson_interval(5, 5)[1], 1.0, abs_tol=1e-12)


def test_a_model_is_measured_the_same_twice() -> None:
    tokenizer = tiny.make_tokenizer()
    config = tiny.make_config(tokenizer)
    sloth = FlashSloth(tiny.make_model(config, attention="sdpa"), tiny.make_processor(tokenizer, config), "tiny")
    first, second = (evaluate_world(sloth, count=2, seed=1).to_dict() for _ in range(2))
    assert first.pop("seconds") >= 0
    second.pop("seconds")
    assert first == second == json.loads(json.dumps(first))
    assert first["model"] == "tiny"


def test_no_pictures_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        evaluate_world(Oracle(lambda q: ""), count=0)  # type: ignore[arg-type]
