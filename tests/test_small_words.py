"""The example that shows `resolution="auto"`: its pictures, and how its curve is reckoned."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from talkative import save_talkative

import flashsloth

FOLDER = Path(__file__).parents[1] / "examples" / "small_words"


@pytest.fixture(scope="module")
def modules() -> Any:
    """`pictures` and `curve`, imported as a script of that folder would."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("pictures"), importlib.import_module("curve")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("pictures", "curve"):
            sys.modules.pop(name, None)


def test_pictures_are_the_same_again_and_half_of_their_words_small(modules: Any) -> None:
    pictures, _ = modules
    drawn = [pictures.draw(0, "test", number) for number in range(40)]
    assert 10 <= sum(one.small for one in drawn) <= 30
    again = pictures.draw(0, "test", 7)
    assert again.image.tobytes() == drawn[7].image.tobytes()
    assert (again.reading, again.others) == (drawn[7].reading, drawn[7].others)
    assert all(len(one.reading) == 1 and one.others for one in drawn)
    shares = [[pictures.draw(0, "test", number, share).small for number in range(5)] for share in (0.0, 1.0)]
    assert shares == [[False] * 5, [True] * 5]


def test_the_curve_is_reckoned_from_both_answers(modules: Any) -> None:
    _, curve = modules
    unsure = curve.Case("small words", 0.5, (False, True), (1.0, 4.0))
    sure = curve.Case("large words", 0.9, (True, True), (1.0, 4.0))
    wrongly = curve.Case("things", 0.98, (False, True), (1.0, 4.0))
    points = {one.name: one for one in curve.curve([unsure, sure, wrongly])}
    assert (points["standard"].right, points["hd"].right) == pytest.approx((1 / 3, 1))
    assert (points["standard"].seconds, points["hd"].seconds) == (1.0, 4.0)
    middle = points["auto, 0.8"]
    assert (middle.right, middle.in_hd, middle.seconds) == pytest.approx((2 / 3, 1 / 3, (5 + 1 + 1) / 3))
    assert middle.groups == {"small words": 1, "large words": 1, "things": 0}
    assert (
        curve.table([middle]).splitlines()[-1] == "| auto, 0.8 | 66.7 % | 100.0 % | 100.0 % | 0.0 % | 33.3 % | 2333 |"
    )


def test_auto_is_what_the_curve_says(modules: Any, tmp_path: Path) -> None:
    pictures, curve = modules
    sloth = flashsloth.load(save_talkative(tmp_path, image_grid=2), device="cpu", picture_cache=0)
    asked = list(curve.questions(pictures.draw(1, "test", number) for number in range(3)))
    cases = [curve.case(sloth, *one) for one in asked]
    threshold = curve.RESOLUTION_THRESHOLD
    expected = sum(case.confidence < threshold for case in cases) / len(cases)
    missing = [curve.Case(group, 1.0, (True, True), (0.0, 0.0)) for group in curve.GROUPS]  # so that none is empty
    tried = curve.point("x", [*cases, *missing], [2 * (case.confidence < threshold) for case in [*cases, *missing]])
    assert tried.in_hd == pytest.approx(expected * len(cases) / (len(cases) + len(missing)))
    asks = [curve.ask(sloth, picture, question, "auto")[0].resolution for _, picture, question in asked]
    assert asks == ["hd" if case.confidence < threshold else "standard" for case in cases]
