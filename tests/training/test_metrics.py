"""The share of right answers, measured without generating."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from flashsloth.training.metrics import answer_accuracy, answers_right, kinds_of_answers, patch_accuracy

IGNORED = -100


def test_an_answer_is_right_when_every_token_is() -> None:
    labels = np.array([[IGNORED, IGNORED, 5, 6, IGNORED, 7, 8, IGNORED]])
    # predicted[t] is made after seeing position t: it stands one before its label.
    right = np.array([[0, 5, 6, 0, 7, 8, 0, 0]])
    wrong_in_the_second = np.array([[0, 5, 6, 0, 7, 9, 0, 0]])
    assert answers_right(right, labels) == [[True, True]]
    assert answers_right(wrong_in_the_second, labels) == [[True, False]]


def test_accuracy_is_counted_by_kind() -> None:
    labels = np.array([[IGNORED, 5, IGNORED, 7], [IGNORED, 5, IGNORED, 7]])
    predicted = np.array([[5, 0, 7, 0], [5, 0, 1, 0]])
    scores = answer_accuracy([["color", "count"], ["color", "count"]])(
        SimpleNamespace(predictions=predicted, label_ids=labels)
    )
    assert scores == {"right": 0.75, "right_color": 1.0, "right_count": 0.5}


@pytest.mark.parametrize(
    ("kinds", "labels", "scored"),
    [
        (["color", "count"], [IGNORED, 5, IGNORED, 7], ["color", "count"]),
        (["color", "count"], [IGNORED, 5, 7, 8], ["text"]),
        (["answer", "answer"], [5, 7, 8, IGNORED], ["answer"]),
    ],
    ids=["apart", "in one piece", "in one piece, of one kind"],
)
def test_answers_that_a_template_runs_together_are_one(kinds: list[str], labels: list[int], scored: list[str]) -> None:
    assert kinds_of_answers(kinds, labels) == scored


def test_patches_that_show_nothing_do_not_count() -> None:
    labels = tuple(np.array([[0, 1, 2]]) for _ in range(4))
    predictions = np.stack([np.array([[5, 1, 1]])] * 4, axis=-1)
    scores = patch_accuracy(SimpleNamespace(predictions=predictions, label_ids=labels))
    assert scores == dict.fromkeys(("right_shape", "right_color", "right_character", "right_center"), 0.5)
