"""Questions about a bar chart: values, extremes, comparisons, labels, colours.

In: a random stream and a `Scene` with a chart. Out: a `Draft`, or None where the chart does not allow the question.
"""

from __future__ import annotations

from random import Random

from flashsloth.world.question_templates import say
from flashsloth.world.referring_expressions import Draft
from flashsloth.world.scene import Bar, Chart, Scene
from flashsloth.world.vocabulary import CAPITALS, COLORS, NO, YES, article

LOOK_SHARE = 0.15  # of the questions of presence are about how all bars look
KIND_SHARE = 0.04  # of the charts are asked what they are


def _chart(scene: Scene) -> Chart:
    assert scene.chart is not None
    return scene.chart


def _others(rng: Random, chart: Chart, right: Bar) -> list[str]:
    labels = [bar.label for bar in chart.bars if bar is not right]
    return rng.sample(labels, min(3, len(labels)))


def ask_chart(rng: Random, scene: Scene) -> Draft | None:
    """The largest, the smallest, a value, or the larger of two."""
    asks = (_ask_extreme, _ask_value, _ask_compare)
    return rng.choices(asks, (40, 40, 20))[0](rng, scene)


def _ask_extreme(rng: Random, scene: Scene) -> Draft | None:
    chart = _chart(scene)
    ordered = sorted(chart.bars, key=lambda bar: bar.value)
    if rng.random() < 0.5:
        topic = "chart tallest" if not chart.horizontal and rng.random() < 0.4 else "chart largest"
        return Draft("chart", say(rng, topic), ordered[-1].label, _others(rng, chart, ordered[-1]))
    return Draft("chart", say(rng, "chart smallest"), ordered[0].label, _others(rng, chart, ordered[0]))


def _ask_value(rng: Random, scene: Scene) -> Draft | None:
    chart = _chart(scene)
    if not chart.readable:
        return None
    bar = rng.choice(chart.bars)
    question = say(rng, "chart value", label=bar.label)
    if rng.random() < 0.15:
        bar = max(chart.bars, key=lambda other: other.value)
        question = say(rng, "chart top value")
    unit = 10 if all(other.value % 10 == 0 for other in chart.bars) else 1
    values = {other.value for other in chart.bars}
    values |= {bar.value + unit, bar.value + 2 * unit, max(unit, bar.value - unit)}
    wrong = [str(value) for value in sorted(values) if value != bar.value]
    return Draft("chart", question, str(bar.value), rng.sample(wrong, min(3, len(wrong))))


def _pair(rng: Random, chart: Chart) -> tuple[Bar, Bar] | None:
    """Two bars that clearly differ."""
    first, second = rng.sample(chart.bars, 2)
    return (first, second) if abs(first.value - second.value) >= chart.clear_gap else None


def _ask_compare(rng: Random, scene: Scene) -> Draft | None:
    pair = _pair(rng, _chart(scene))
    if pair is None:
        return None
    low, high = sorted(pair, key=lambda bar: bar.value)
    more = rng.random() < 0.6
    topic = "chart compare" if more else "chart compare less"
    return Draft("chart", say(rng, topic, label=pair[0].label, other=pair[1].label), (high if more else low).label)


def ask_chart_relation(rng: Random, scene: Scene) -> Draft | None:
    """Whether one bar is larger than another."""
    pair = _pair(rng, _chart(scene))
    if pair is None:
        return None
    larger = rng.random() < 0.5
    yes = (pair[0].value > pair[1].value) == larger
    topic = "chart is larger" if larger else "chart is smaller"
    return Draft("relation", say(rng, topic, label=pair[0].label, other=pair[1].label), YES if yes else NO)


def ask_chart_count(rng: Random, scene: Scene) -> Draft | None:
    """How many bars there are, or how many are larger than one of them."""
    chart = _chart(scene)
    bar = rng.choice(chart.bars)
    clear = all(other is bar or abs(other.value - bar.value) >= chart.clear_gap for other in chart.bars)
    if clear and rng.random() < 0.35:
        count, question = sum(other.value > bar.value for other in chart.bars), "chart above count"
    else:
        count, question = len(chart.bars), "chart bars"
    wrong = [str(other) for other in range(max(0, count - 2), count + 3) if other != count]
    return Draft("count", say(rng, question, label=bar.label), str(count), rng.sample(wrong, min(3, len(wrong))))


def ask_chart_color(rng: Random, scene: Scene) -> Draft | None:
    """The colour of a bar, or of all."""
    chart = _chart(scene)
    bar = rng.choice(chart.bars)
    present = list(dict.fromkeys(other.color for other in chart.bars if other.color != bar.color))
    far = [name for name in COLORS if name not in present and name not in (bar.color, scene.background.name)]
    wrong = rng.sample(present, min(2, len(present))) + rng.sample(far, 3)
    if not present and rng.random() < 0.7:
        return Draft("color", say(rng, "chart bars color"), bar.color, wrong)
    return Draft("color", say(rng, "chart bar color", label=bar.label), bar.color, wrong)


def ask_chart_presence(rng: Random, scene: Scene) -> Draft | None:
    """Whether a bar of some label or colour is there, or how the bars stand; half the answers are no."""
    chart = _chart(scene)
    yes = rng.random() < 0.5
    labels = [bar.label for bar in chart.bars]
    colors = {bar.color for bar in chart.bars}
    if rng.random() < LOOK_SHARE:
        if rng.random() < 0.5:
            return Draft("presence", say(rng, "chart same color"), YES if len(colors) == 1 else NO)
        return Draft("presence", say(rng, "chart direction"), YES if chart.horizontal else NO)
    if rng.random() < 0.4:
        pool = sorted(colors) if yes else [name for name in COLORS if name not in colors]
        color = rng.choice(pool)
        return Draft("presence", say(rng, "presence", a=article(f"{color} bar")), YES if yes else NO)
    if not yes and any(len(label) > 1 for label in labels):
        return None
    absent = [letter for letter in CAPITALS if letter not in labels]
    label = rng.choice(labels if yes else [*absent[:6], rng.choice(absent)])
    return Draft("presence", say(rng, "chart has bar", label=label), YES if yes else NO)


def ask_chart_reading(rng: Random, scene: Scene) -> Draft | None:
    """The label of a bar that is named by its place or its colour."""
    chart = _chart(scene)
    bar = rng.choice(chart.bars)
    refs = [f"the {bar.color} bar"] if [other.color for other in chart.bars].count(bar.color) == 1 else []
    ends = ("the top bar", "the bottom bar") if chart.horizontal else ("the leftmost bar", "the rightmost bar")
    if bar is chart.bars[0]:
        refs.append(ends[0])
    if bar is chart.bars[-1]:
        refs.append(ends[1])
    if not chart.horizontal and bar in (chart.bars[0], chart.bars[-1]):
        refs.append("the first bar" if bar is chart.bars[0] else "the last bar")
    if not refs:
        return None
    return Draft("reading", say(rng, "chart label", ref=rng.choice(refs)), bar.label, _others(rng, chart, bar))


def ask_chart_shape(rng: Random, scene: Scene) -> Draft | None:
    """What kind of picture it is; asked of few charts, for the answer is always the same."""
    if rng.random() > KIND_SHARE:
        return None
    return Draft("shape", say(rng, "chart kind"), "bar chart")
