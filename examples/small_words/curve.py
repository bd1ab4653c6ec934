"""What `resolution="auto"` costs and gains between standard and HD, as a table and a plot.

    python examples/small_words/curve.py runs/small-words

Every question about test pictures of `pictures.py` is asked at standard resolution and in HD, one at a time, nothing
kept in between. What `auto` answers at a threshold follows from both: the first answer where it is sure, else the
second, and the time of what was asked. That it does is tried too: `auto` itself is asked all questions, at its own
threshold.

Times are seconds of one processor core (`process_time`): what else runs on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from pictures import READING, Drawn, draw

import flashsloth
from flashsloth.inference import RESOLUTION_THRESHOLD
from flashsloth.inference.answer import Answer
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.world.questions import Question

PICTURES, SEED, MAX_TOKENS = 200, 1, 12
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
GROUPS = ("small words", "large words", "things")


@dataclass(frozen=True)
class Case:
    """One question, asked both ways.

    Attributes:
        group: one of :data:`GROUPS`.
        confidence: of the standard answer.
        right: whether the standard answer, and HD's, is.
        seconds: that each took.
    """

    group: str
    confidence: float
    right: tuple[bool, bool]
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Point:
    """A way to ask all questions: the shares of right answers and of questions asked in HD, and seconds an answer."""

    name: str
    right: float
    groups: dict[str, float]
    in_hd: float
    seconds: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", help="an HD model, as train.py writes it")
    arguments.add_argument("--pictures", type=int, default=PICTURES, help="each with two questions")
    arguments.add_argument("--plot", type=Path, help="a PNG file to draw")
    arguments.add_argument("--json", type=Path, help="a file for the numbers")
    given = arguments.parse_args()
    sloth = flashsloth.load(given.model, device="cpu", dtype="float32", picture_cache=0)
    asked = list(questions(draw(SEED, "test", number) for number in range(given.pictures)))
    for resolution in ("standard", "hd"):  # what the first answers pay for is not counted
        ask(sloth, *asked[0][1:], resolution)
    cases = [case(sloth, *one) for one in asked]
    points = curve(cases)
    tried = try_auto(sloth, asked)
    print(table([*points, tried]))
    if given.json:
        found = {"cases": [asdict(one) for one in cases], "points": [asdict(one) for one in [*points, tried]]}
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if given.plot:
        plot(points, given.plot)


def questions(pictures: Iterable[Drawn]) -> Iterable[tuple[str, Any, Question]]:
    """(group, picture, question): of each picture, one about its word and one about its things."""
    for number, drawn in enumerate(pictures):
        for question in (drawn.reading[0], Random(number).choice(drawn.others)):
            words = GROUPS[0] if drawn.small else GROUPS[1]
            yield words if question.kind == READING else GROUPS[2], drawn.image, question


def case(sloth: FlashSloth, group: str, picture: Any, question: Question) -> Case:
    """Ask standard and HD."""
    standard, first = ask(sloth, picture, question, "standard")
    every, second = ask(sloth, picture, question, "hd")
    assert standard.confidence is not None
    right = standard.text == question.answer, every.text == question.answer
    return Case(group, standard.confidence, right, (first, second))


def ask(sloth: FlashSloth, picture: Any, question: Question, resolution: Any) -> tuple[Answer, float]:
    """An answer, and the processor seconds that it took."""
    started = time.process_time()
    answer: Answer = sloth.answer(
        picture, question.question, resolution=resolution, logprobs=True, max_tokens=MAX_TOKENS, details=True
    )
    return answer, time.process_time() - started


def curve(cases: Sequence[Case]) -> list[Point]:
    """Standard, auto at each threshold, and HD."""
    auto = [point(f"auto, {one:g}", cases, [2 if case.confidence < one else 0 for case in cases]) for one in THRESHOLDS]
    return [point("standard", cases, [0] * len(cases)), *auto, point("hd", cases, [1] * len(cases))]


def point(name: str, cases: Sequence[Case], ways: Sequence[int]) -> Point:
    """Cases each asked in a way: 0 at standard resolution, 1 in HD, 2 at standard and then in HD."""
    pairs = list(zip(cases, ways, strict=True))
    right = [case.right[way > 0] for case, way in pairs]
    groups = {
        group: fmean(fine for case, fine in zip(cases, right, strict=True) if case.group == group) for group in GROUPS
    }
    seconds = fmean(case.seconds[way] if way < 2 else sum(case.seconds) for case, way in pairs)
    return Point(name, fmean(right), groups, fmean(way > 0 for way in ways), seconds)


def try_auto(sloth: FlashSloth, asked: Sequence[tuple[str, Any, Question]]) -> Point:
    """All questions asked with auto, at its own threshold."""
    cases, ways = [], []
    for group, picture, question in asked:
        answer, seconds = ask(sloth, picture, question, "auto")
        right = answer.text == question.answer
        cases.append(Case(group, 0.0, (right, right), (seconds, seconds)))
        ways.append(int(answer.resolution == "hd"))
    return point(f"auto itself, {RESOLUTION_THRESHOLD:g}", cases, ways)


def table(points: Sequence[Point]) -> str:
    """Markdown."""
    lines = [
        f"| resolution | right | {' | '.join(GROUPS)} | asked in HD | ms an answer |",
        "|---|---|" + "---|" * (len(GROUPS) + 2),
    ]
    for one in points:
        shares = [one.right, *(one.groups[group] for group in GROUPS), one.in_hd]
        cells = [one.name, *(f"{100 * share:.1f} %" for share in shares), f"{1000 * one.seconds:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(points: Sequence[Point], path: Path) -> None:
    """Right answers beside time: standard, HD, the curve of auto, and what a coin between the two would give."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    auto = points[1:-1]
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    xs, ys = ([1000 * one.seconds for one in points], [100 * one.right for one in points])
    axes.plot([xs[0], xs[-1]], [ys[0], ys[-1]], "--", color="#999999", label="standard or HD, by the toss of a coin")
    axes.plot(xs[:-1], ys[:-1], "o-", color="#0072b2", label="auto, by threshold")
    for one, x, y in zip(auto, xs[1:], ys[1:], strict=False):
        axes.annotate(one.name.removeprefix("auto, "), (x, y), (6, -11), textcoords="offset points", fontsize=8)
    axes.plot(xs[0], ys[0], "s", color="#d55e00", markersize=9, label="standard")
    axes.plot(xs[-1], ys[-1], "D", color="#009e73", markersize=9, label="HD")
    axes.set(xlabel="processor time an answer, ms", ylabel="right answers, %")
    axes.set_title("Small HD model on pictures with small and large words")
    axes.grid(color="#d8dce0", linewidth=0.8)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
