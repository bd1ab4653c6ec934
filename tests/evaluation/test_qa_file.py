"""Questions about given pictures: what the file may hold, and how answers are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flashsloth.evaluation.qa_file import QuestionsError, evaluate_pictures, read_questions

FOREIGN = Path(__file__).parents[1] / "foreign" / "questions.yaml"
EXAMPLES = Path(__file__).parents[2] / "examples" / "questions.yaml"
MOST_BYTES = 3_000_000
FEWEST_PICTURES, FEWEST_OF_A_KIND = 100, 15


class Parrot:
    """Answers in a model's place."""

    name = "parrot"

    def __init__(self, say: Callable[[str], str]) -> None:
        self._say = say

    def answer_as_ready(self, pairs: Iterable[tuple[Any, str]], **options: Any) -> Iterator[tuple[int, str]]:
        for place, (_, question) in enumerate(pairs):
            yield place, self._say(question)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file of questions beside two pictures."""

    def make(text: str) -> Path:
        (tmp_path / "some").mkdir(exist_ok=True)
        for name in ("red.png", "some/blue.png"):
            Image.new("RGB", (8, 8), name.split("/")[-1][:-4]).save(tmp_path / name)
        file = tmp_path / "questions.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return make


def test_answers_are_counted_by_kind_and_by_folder(write: Callable[[str], Path]) -> None:
    file = write(
        "red.png:\n- {question: what color, answer: red}\n"
        "some/blue.png:\n- {kind: color, question: which color, answer: blue}\n"
        "- {kind: shape, question: s, answer: star}\n"
    )
    done: list[int] = []
    report = evaluate_pictures(Parrot(lambda q: "Blue." if "color" in q else "star"), file, progress=done.append)  # type: ignore[arg-type]
    counts = {score.name: (score.right, score.asked) for score in [*report.kinds, *report.also, report.total]}
    assert counts == {"shape": (1, 1), "color": (1, 1), "question": (0, 1), "by some": (2, 2), "all": (2, 3)}
    assert [score.name for score in report.kinds] == ["shape", "color", "question"]
    assert report.pictures == sum(done) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list"),
        ("red.png: {", "is not YAML"),
        ("green.png: [{question: a, answer: b}]", "no such picture"),
        ("red.png: []", r"red\.png: found \[\], expected a list, each item a group of keys: kind, question, answer"),
        ("red.png: [{question: a}]", r"red\.png\.0\.answer: missing, expected text"),
        ("red.png: [{question: a, answer: b, sort: c}]", r"red\.png\.0\.sort: unknown key, expected one of kind"),
        ("red.png: [{question: a, answer: 3}]", r"0\.answer: found 3, expected text: put it in quotation marks"),
        ("red.png: [{question: a, answer: yes}]", "found true, expected text: put it in quotation marks"),
        ("red.png: 5\nblue.png: [{question: a}]", "has 3 mistakes:"),
        ("red.png: [{question: a, answer: b}]\nred.png: []", "'red.png' is there twice"),
    ],
)
def test_a_mistake_is_named(write: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(QuestionsError, match=message):
        read_questions(write(text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuestionsError, match="no file of questions"):
        read_questions(tmp_path / "nowhere.yaml")


def test_the_examples_are_such_a_file() -> None:
    assert len(read_questions(EXAMPLES)) == 6


def test_the_foreign_set_is_whole() -> None:
    pictures = read_questions(FOREIGN)
    assert len(pictures) >= FEWEST_PICTURES
    assert {picture.group for picture in pictures} == {"by browser", "by matplotlib", "by imagemagick"}
    kinds = [question.kind for picture in pictures for question in picture.questions]
    for kind in ("shape", "color", "presence", "count", "relation", "reading", "chart", "choice", "unknown"):
        assert kinds.count(kind) >= FEWEST_OF_A_KIND, kind
    assert sum(picture.image.stat().st_size for picture in pictures) < MOST_BYTES
    assert {path.resolve() for path in FOREIGN.parent.glob("*/*.png")} == {p.image.resolve() for p in pictures}
