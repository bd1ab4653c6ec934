"""Closed questions over HTTP: the probabilities are the model's own, whatever is asked beside them."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import Any

import pytest
from served import EXAMPLES, MODEL, data_url, nano, post, refusal, serving

from flashsloth.serving.systemone import choice_confidence, score_confidence
from flashsloth.serving.systemone_schema import MOST_QUESTIONS

COLORS = ["red", "green", "blue"]
COLOR = {"type": "choice", "instructions": "What color is the circle?", "criteria": dict.fromkeys(COLORS)}
STAR = {"type": "noul", "instructions": "Is there a yellow star?"}
COUNT = {"type": "score", "instructions": "How many circles are there?", "criteria": ["0", "1", "2", "3"]}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as address:
        yield f"{address}/v1/systemone"


def ask(url: str, questions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"model": MODEL, "images": [data_url("shapes.png")], "state": "", "questions": questions, **fields}
    reply = post(url, body)
    assert reply.status_code == 200, reply.text
    assert list(reply.json()) == ["model", "answers", "usage"]
    answers: dict[str, Any] = reply.json()["answers"]
    assert list(answers) == list(questions)
    return answers


def test_answers_are_the_command_lines_choices(url: str) -> None:
    answers = ask(url, {"color": COLOR, "star": STAR, "count": COUNT})
    picture, sloth = EXAMPLES / "shapes.png", nano()
    color = sloth.answer(picture, COLOR["instructions"], choices=COLORS)
    assert answers["color"]["choice"] == color.text == "red"
    assert answers["color"]["probabilities"] == pytest.approx(color.choices, abs=1e-5)
    assert answers["color"]["confidence"] == pytest.approx(choice_confidence([*color.choices.values()]), abs=1e-5)
    star = sloth.answer(picture, STAR["instructions"], choices=["yes", "no"])
    assert answers["star"] == {"type": "noul", "noul": pytest.approx(star.choices["yes"], abs=1e-5)}
    count = sloth.answer(picture, COUNT["instructions"], choices=COUNT["criteria"])
    assert answers["count"]["probabilities"] == pytest.approx(count.choices, abs=1e-5)
    assert answers["count"]["legend"] == {"0": "0", "1": "1", "2": "2", "3": "3"}
    expected = sum(level * share for level, share in enumerate(count.choices.values()))
    assert answers["count"]["score"] == pytest.approx(expected, abs=1e-4)


def test_a_picture_stands_where_its_name_stands(url: str) -> None:
    """By its bytes in base64, in the state or in one question; named in two, it is shown twice."""
    plain = base64.b64encode((EXAMPLES / "shapes.png").read_bytes()).decode()
    assets = {"photo": {"type": "image", "format": "png", "data_base64": plain}}
    assert ask(url, {"color": COLOR}, images=None, state="photo", assets=assets) == ask(url, {"color": COLOR})
    inside = {**COLOR, "instructions": f"photo\n{COLOR['instructions']}"}
    assert ask(url, {"color": inside}, images=None, assets=assets) == ask(url, {"color": COLOR})
    counting = {"other": {"data_base64": data_url("counting.png")}}
    other = ask(url, {"color": {**COLOR, "instructions": f"other {COLOR['instructions']}"}}, assets=counting)
    shown = [EXAMPLES / "shapes.png", EXAMPLES / "counting.png"]
    expected = nano().answer(shown, COLOR["instructions"], choices=COLORS)
    assert other["color"]["probabilities"] == pytest.approx(expected.choices, abs=1e-5)


def test_state_and_meanings_are_told(url: str) -> None:
    """A state that is no text comes as JSON, and what an option means on a line of its own."""
    question = {**COLOR, "criteria": {"red": "like fire", "green": None, "blue": ["sky"]}}
    answers = ask(url, {"color": question}, state={"page": 3})
    told = '{"page": 3}\nWhat color is the circle?\nred: like fire\nblue: ["sky"]'
    expected = nano().answer(EXAMPLES / "shapes.png", told, choices=COLORS)
    assert answers["color"]["probabilities"] == pytest.approx(expected.choices, abs=1e-5)


def test_many_questions_share_one_look(url: str) -> None:
    """More than there are rows: each as it is alone, and the picture is encoded once."""
    looks = []
    encode, name = nano().image_encoder.encode, "word.png"
    nano().image_encoder.encode = lambda views: (looks.append(len(views)), encode(views))[1]
    try:
        questions = {f"q{i}": {**COLOR, "instructions": f"What color is shape {i}?"} for i in range(MOST_QUESTIONS)}
        answers = ask(url, questions, images=[data_url(name)])
    finally:
        nano().image_encoder.encode = encode
    assert looks == [1]
    for i in (0, 17, MOST_QUESTIONS - 1):
        alone = nano().answer(EXAMPLES / name, f"What color is shape {i}?", choices=COLORS)
        assert answers[f"q{i}"]["probabilities"] == pytest.approx(alone.choices, abs=1e-4)


def test_where_it_looked(url: str) -> None:
    answers = ask(url, {"color": COLOR}, flashsloth={"attention": "sap"})
    assert "sap" in answers["color"]["flashsloth"]["attention"]["pictures"][0]


def test_without_a_picture(url: str) -> None:
    answers = ask(url, {"star": STAR}, images=None, state="A red circle.")
    assert 0 <= answers["star"]["noul"] <= 1


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "jev-latest"}, 404, "model"),
        ({"questions": {}}, 400, "questions"),
        ({"questions": {"a": {"type": "box"}}}, 400, "questions.a.type"),
        ({"questions": {"a": {"type": "choice", "instructions": "x"}}}, 400, "questions.a.criteria"),
        ({"questions": {"a": {**COLOR, "criteria": ["red"]}}}, 400, "questions.a.criteria"),
        ({"questions": {"a": {**COLOR, "criteria": {"red": None, " ": None}}}}, 400, "questions.a.criteria"),
        ({"questions": {"a": {**COUNT, "criteria": ["1", "1"]}}}, 400, "questions.a.criteria"),
        ({"questions": {"a": {**COUNT, "criteria": {}}}}, 400, "questions.a.criteria"),
        ({"questions": {"a": {**STAR, "criteria": {"maybe": None}}}}, 400, "questions.a.criteria"),
        ({"questions": {"a": {"type": "noul"}}}, 400, "questions.a.instructions"),
        ({"questions": {"a": {**STAR, "weight": 1}}}, 400, "questions.a.weight"),
        ({"questions": {"a\r\nb": {**STAR, "weight": 1}}}, 400, "questions.'a\\r\\nb'.weight"),
        ({"questions": {"a": STAR, "b": {**STAR, "instructions": "x " * 3000}}}, 400, "questions.b"),
        ({"state": "x" * 70_000}, 400, "questions.star"),
        ({"assets": {f"x{i}": {"data_base64": "AAAA"} for i in range(9)}}, 400, "assets"),
        ({"assets": {"x": {"data_base64": "AAAA"}}}, 400, "assets.x"),
        ({"assets": {"": {"data_base64": "AAAA"}}}, 400, "assets"),
        ({"state": "pic", "assets": {"pic": {"data_base64": "AAAA"}}}, 400, "questions.star"),
        ({"images": [data_url("word.png")] * 9}, 400, "questions.star"),
        ({"images": ["file:///etc/passwd"]}, 400, "questions.star"),
        ({"stream": True}, 400, "stream"),
        ({"flashsloth": {"resolution": "hd"}}, 400, "flashsloth"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], status: int, param: str, url: str) -> None:
    body = {"model": MODEL, "state": "", "questions": {"star": STAR}, **fields}
    assert refusal(post(url, body)) == (status, param)
    assert ask(url, {"color": COLOR})["color"]["choice"] == "red"


def test_more_options_than_can_ever_wait() -> None:
    many = {"type": "choice", "instructions": "Which?", "criteria": {f"option {i}": None for i in range(9)}}
    with serving(max_running=4, max_waiting=4) as address:
        body = {"questions": {"a": many}}
        assert refusal(post(f"{address}/v1/systemone", body)) == (400, "questions.a.criteria")


def test_confidence_is_between_chance_and_certainty() -> None:
    assert choice_confidence([1.0]) == score_confidence([1.0]) == 1
    assert choice_confidence([0.0, 1.0, 0.0]) == score_confidence([0.0, 1.0, 0.0]) == 1
    assert choice_confidence([0.25] * 4) == 0
    assert math.isclose(choice_confidence([0.5, 0.25, 0.25]), 0.25)
    assert score_confidence([0.5, 0.0, 0.5]) < score_confidence([0.1, 0.8, 0.1]) < 1
