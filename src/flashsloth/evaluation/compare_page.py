"""A comparison as one HTML file, for people who would rather look than read: pictures, questions, both answers.

In: a :class:`Comparison`, and the benchmark's data where pictures shall be seen. Out: a file that needs nothing else
and asks no network for anything: its policy forbids it, and lets no script run but its own. Texts are a model's and may
be anything: all of them are escaped, and what cannot be printed is shown as U+FFFD.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.compare import LABELS, LOST, OUTCOMES, WON, Comparison, Difference, Pair
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.settings import TaskSettings
from flashsloth.evaluation.task import EvaluationError
from flashsloth.files import write_whole
from flashsloth.media import PictureError, open_picture

PAGE = Path(__file__).with_name("page")
THUMBNAIL = 512
"""Pixels of a picture's longer side, at most."""
QUALITY = 80
"""Of its JPEG."""
TRUTH_CHARACTERS = 200
MARKS: dict[str, str] = {"lost": "▼", "won": "▲", "changed": "≠", "same": "=", "all": "∗"}
FIRST_TRUTHS = ("label", "answer", "answers")
"""Names of what is right, which stand before all else that a task knows."""
POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; "
    "base-uri 'none'; form-action 'none'"
)
"""Of the page: its own style and script, pictures that it holds, and nothing else."""
JOINERS = "\u200c\u200d"
"""Characters that are not seen, and join or part the letters beside them."""
MARGIN = 0.06
"""Of the plot's width, beyond what is drawn."""


def write_page(path: Path, comparison: Comparison, items: Sequence[Item] | None, most: int) -> int:
    """Write a comparison's page.

    Args:
        path: the file.
        comparison: what is shown.
        items: of the data, for the pictures; None for none.
        most: groups of questions that are shown, those that changed first.

    Returns:
        How many pictures could not be opened; the page says of each why.

    Raises:
        EvaluationError: where the data lacks a question.
    """
    known = None if items is None else {item.id: item for item in items}
    pairs = comparison.ordered[:most]
    cards = _cards(pairs, comparison.settings, known)
    css, script = (PAGE.joinpath(name).read_text(encoding="utf-8") for name in ("compare.css", "compare.js"))
    write_whole(
        path, _rendered(css, script, {**_facts(comparison), **_plot(comparison), "cards": cards, "shown": len(pairs)})
    )
    return sum(not picture["url"] for card in cards for picture in card["pictures"])


def _rendered(css: str, script: str, facts: dict[str, Any]) -> str:
    import jinja2
    from markupsafe import Markup

    loader = jinja2.FileSystemLoader(PAGE)
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script))
    policy = POLICY.format(*digests)
    return made.get_template("compare.html").render(**facts, policy=policy, css=Markup(css), script=Markup(script))


def printable(text: str) -> str:
    """A text as a page may hold it: what is no character, or would move others about, is replaced."""
    return "".join(
        one if one.isprintable() or one in f"\n\t{JOINERS}" or unicodedata.category(one) == "Zs" else "\ufffd"
        for one in text.replace("\r\n", "\n")
    )


def _facts(comparison: Comparison) -> dict[str, Any]:
    counts, settings = comparison.counts, comparison.settings
    filters = [{"name": "all", "label": "all", "mark": MARKS["all"], "count": f"{len(comparison.pairs):,}"}]
    filters += [
        {"name": name, "label": LABELS[name], "mark": MARKS[name], "count": f"{counts[name]:,}"} for name in OUTCOMES
    ]
    around = f"{settings.before}[...]{settings.after}" if settings.before or settings.after else ""
    return {
        "title": settings.title,
        "before": printable(comparison.before.name),
        "after": printable(comparison.after.name),
        "before_path": printable(str(comparison.before.path)),
        "after_path": printable(str(comparison.after.path)),
        "questions": f"{sum(len(pair.before.predictions) for pair in comparison.pairs):,}",
        "pictures": f"{comparison.pictures:,}",
        "groups": len(comparison.pairs),
        "unjudged": comparison.unjudged,
        "filters": filters,
        "around": around,
        "verdict": verdict(comparison),
    }


def verdict(comparison: Comparison) -> str:
    """What the score's difference says, in a sentence."""
    score, counts = comparison.score, comparison.counts
    won, lost = counts[WON], counts[LOST]
    changes = f"It won {won:,} and lost {lost:,} of {len(comparison.pairs):,}."
    if not won and not lost:
        return f"Both scored the same on each of {len(comparison.pairs):,}."
    if score.value == 0:
        return f"Both have the same score. {changes}"
    more = "more" if score.value > 0 else "less"
    chance = "which may be chance" if score.may_be_chance else "more than chance explains"
    return f"{comparison.after.name} scores {abs(score.value):.2f} {more}, {chance}. {changes}"


def _plot(comparison: Comparison) -> dict[str, Any]:
    """Bars of the score, in percent of the plot's width, and a table of all figures."""
    score = comparison.score
    spread = (*score.before_interval, *score.after_interval, score.before, score.after)
    low, high = _widened(min(spread), max(spread))
    reach = max(abs(score.low), abs(score.high), abs(score.value)) or 1.0
    bars = [
        _bar("before", comparison.before.name, score.before, score.before_interval, low, high),
        _bar("after", comparison.after.name, score.after, score.after_interval, low, high),
        _bar("difference", "difference", score.value, (score.low, score.high), *_widened(-reach, reach)),
    ]
    rows = [
        {"name": one.name, "before": f"{one.before:.2f}", "after": f"{one.after:.2f}", "value": signed(one.value),
         "interval": shown_interval(one)}
        for one in comparison.differences
    ]  # fmt: skip
    return {"bars": bars, "figures": rows}


def signed(value: float) -> str:
    """A difference with its sign: a real minus, and none for what rounds to 0."""
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def shown_interval(one: Difference) -> str:
    """The 95 % interval of a difference."""
    return f"{signed(one.low)} to {signed(one.high)}"


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = MARGIN * (high - low) or 1.0
    return low - margin, high + margin


def _bar(kind: str, name: str, value: float, interval: tuple[float, float], low: float, high: float) -> dict[str, Any]:
    is_difference = kind == "difference"

    def place(number: float) -> float:
        return round(100 * (number - low) / (high - low), 3)

    shown = signed if is_difference else "{:.2f}".format
    return {
        "kind": kind,
        "name": printable(name),
        "low": place(interval[0]),
        "high": place(interval[1]),
        "value": place(value),
        "zero": place(0.0) if is_difference else None,
        "text": shown(value),
        "interval": f"{shown(interval[0])} to {shown(interval[1])}",
    }


def _cards(pairs: Sequence[Pair], settings: TaskSettings, items: Mapping[str, Item] | None) -> list[dict[str, Any]]:
    """Groups of questions by their pictures, in the order of the first of each."""
    cards: dict[tuple[str, int], dict[str, Any]] = {}
    for pair in pairs:
        first = pair.before.predictions[0]
        shown = _item(first, items).pictures if items is not None else ()
        key = first.picture, len(shown)
        if key not in cards:
            made = [_thumbnail(picture, f"{first.picture}, {number}") for number, picture in enumerate(shown, 1)]
            cards[key] = {"name": printable(first.picture), "pictures": made, "rows": []}
        cards[key]["rows"].append(_row(pair, settings))
    return list(cards.values())


def _item(one: Prediction, items: Mapping[str, Item]) -> Item:
    if one.id not in items:
        raise EvaluationError(f"the data has no question {one.id!r}: expected the data that was asked about")
    return items[one.id]


def _thumbnail(picture: Picture, name: str) -> dict[str, Any]:
    """A small copy as a data URL; where it cannot be opened, why."""
    try:
        opened = open_picture(picture() if callable(picture) else picture)
    except PictureError as error:
        return {"url": "", "alt": printable(str(error)), "width": 0, "height": 0}
    opened.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    opened.save(file, "JPEG", quality=QUALITY)
    url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"url": url, "alt": printable(f"picture {name}"), "width": opened.width, "height": opened.height}


def _row(pair: Pair, settings: TaskSettings) -> dict[str, Any]:
    asked = []
    for first, second in zip(pair.before.predictions, pair.after.predictions, strict=True):
        answers = {"before": _answer(first, pair.before), "after": _answer(second, pair.after)}
        asked.append({"question": _question(first, settings), **answers})
    outcome = pair.outcome
    label = LABELS[outcome]
    if len(asked) > 1:  # whose answers do not count one by one
        was, now = pair.before.value, pair.after.value
        label += f": {now:g}" if was == now else f": {was:g} → {now:g}"
    return {
        "outcome": outcome,
        "mark": MARKS[outcome],
        "label": label,
        "truth": _truth(pair.before.predictions[0].truth),
        "asked": asked,
    }


def _question(one: Prediction, settings: TaskSettings) -> str:
    return printable(one.prompt.removeprefix(settings.before).removesuffix(settings.after))


def _answer(one: Prediction, scored: Scored) -> dict[str, str]:
    """An answer with what it was worth, where it counts alone."""
    text = printable(one.answer.strip())
    found = {"text": text, "verdict": "", "mark": "", "read": ""}
    if len(scored.predictions) == 1:
        value = scored.value or 0.0
        verdict, mark = (
            ("right", "✓") if value == 1 else ("wrong", "✗") if value == 0 else (f"worth {value:g}", f"{value:g}")
        )
        found.update(verdict=verdict, mark=mark)
        if scored.said and scored.said.lower() != text.lower():
            found["read"] = printable(scored.said)
    return found


def _truth(truth: Mapping[str, Any]) -> str:
    """What is right, and what else the task knows of it, in a line."""
    names = sorted(truth, key=lambda name: name not in FIRST_TRUTHS)
    text = ", ".join(f"{name}: {_plain(truth[name])}" for name in names)
    return printable(text if len(text) <= TRUTH_CHARACTERS else f"{text[:TRUTH_CHARACTERS]}...")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
