"""Answers checked against the scene by a reader that shares no code with the one that asks.

It understands a question by its words alone: shapes, colours, quoted text, labels, sides.
"""

import re
from collections import Counter

import pytest

from flashsloth.world import World
from flashsloth.world.vocabulary import COLORS, SHAPES

PLURALS = {**{f"{shape}s": shape for shape in SHAPES}, "crosses": "cross"}
OPTION = re.compile(r"(?:^|[\s(])([A-D])(?:\.|\)|:) ")
UNKNOWN = object()


def words(text):
    return re.findall(r"[a-z]+", text.lower().replace("grey", "gray"))


def split_choice(question):
    """The question before its options, and the options by letter."""
    marks = list(OPTION.finditer(question))
    start = next(k for k, mark in enumerate(marks) if mark.group(1) == "A" and follows(marks, k))
    marks = marks[start:]
    count = next((k for k, mark in enumerate(marks) if mark.group(1) != "ABCD"[k]), len(marks))
    marks = marks[:count]
    ends = [mark.start() for mark in marks[1:]] + [None]
    options = {
        mark.group(1): question[mark.end() : end].split("\n")[0].strip() for mark, end in zip(marks, ends, strict=True)
    }
    return question[: marks[0].start()], options


def follows(marks, k):
    return k + 1 < len(marks) and marks[k + 1].group(1) == "B"


def named(text):
    """The shape and the colour that `text` names, each once at most."""
    found = words(text)
    shapes = [PLURALS.get(word, word) for word in found if PLURALS.get(word, word) in SHAPES]
    colors = [word for word in found if word in COLORS]
    return (shapes[0] if shapes else None), (colors[0] if colors else None)


def fitting(scene, text):
    shape, color = named(text)
    return [t for t in scene.things if shape in (None, t.shape) and color in (None, t.color)]


def only(things):
    assert len(things) == 1, things
    return things[0]


def referent(scene, text):
    """The one thing that a question is about."""
    quoted = re.findall(r'"(\w+)"', text)
    if quoted:
        return only([t for t in scene.things if t.writing and t.writing.text == quoted[0]])
    lowered, things = text.lower(), scene.things
    extremes = {
        r"leftmost|on the left|to the left": lambda t: t.box.left + t.box.right,
        r"rightmost|on the right|to the right": lambda t: -t.box.left - t.box.right,
        r"topmost|at the top|the highest": lambda t: t.box.top + t.box.bottom,
        r"bottom|lowest": lambda t: -t.box.top - t.box.bottom,
        r"biggest|largest": lambda t: -t.area,
        r"smallest": lambda t: t.area,
    }
    for pattern, order in extremes.items():
        if re.search(pattern, lowered):
            return min(things, key=order)
    if named(text) == (None, None):
        return only(things)
    return only(fitting(scene, text))


def check_things(kind, question, scene):
    found = words(question)
    if "background" in found or "behind" in found:
        return scene.background.name
    if kind == "presence":
        return "yes" if fitting(scene, question) else "no"
    if kind == "count":
        return str(len(fitting(scene, question)))
    if kind == "color" and re.search(r"the (letter|number) in", question.lower()):
        return referent(scene, question).writing.color
    if kind == "color":
        return referent(scene, question).color
    if kind == "shape":
        thing = referent(scene, question)
        return {thing.shape, f"{thing.color} {thing.shape}"} if len(scene.things) == 1 else thing.shape
    if kind == "relation":
        return check_relation(question, scene)
    labelled = [t for t in scene.things if t.writing]
    return (only(labelled) if named(question) == (None, None) else only(fitting(scene, question))).writing.text


def check_relation(question, scene):
    lowered = question.lower().replace("grey", "gray")
    names = re.findall(r"the ((?:\w+ )?(?:" + "|".join(SHAPES) + r"))\b", lowered)
    names = [name if name.split()[0] in COLORS else name.split()[-1] for name in names]
    things = [only(fitting(scene, name)) for name in names]
    sides = [("left", 0, -1), ("right", 0, 1), ("above|higher|over", 1, -1), ("below|lower|under|further down", 1, 1)]
    if len(things) == 2 and not re.search("bigger|larger|smaller", lowered):
        for pattern, axis, sign in sides:
            if re.search(pattern, lowered):
                return "yes" if sign * (things[0].center[axis] - things[1].center[axis]) > 0 else "no"
    if len(things) == 2:
        first_bigger = things[0].area > things[1].area
        wanted = first_bigger == ("smaller" not in lowered)
        if lowered.startswith(("is", "does")):
            return "yes" if wanted else "no"
        return names[0] if wanted else names[1]
    thing = only(things)
    x, y = thing.center[0] / scene.width, thing.center[1] / scene.height
    if re.match(r"(what|which)", lowered) and "position" not in lowered and "part" not in lowered:
        for pattern, axis, sign in sides:
            if re.search(pattern, lowered):
                other = only([t for t in scene.things if sign * (t.center[axis] - thing.center[axis]) > 0])
                return {other.name, other.shape, other.color}
    if "left or" in lowered:
        return "left" if x < 0.5 else "right"
    if re.search(r"top or", lowered):
        return "top" if y < 0.5 else "bottom"
    for word, holds in (("left", x < 0.5), ("right", x > 0.5), ("top|upper", y < 0.5), ("bottom|lower", y > 0.5)):
        if re.search(word, lowered):
            return "yes" if holds else "no"
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return f"{row} {column}".strip() or "middle"


def check_writings(kind, question, scene):
    lowered, texts = question.lower(), [w.text for w in scene.writings]
    quoted = re.findall(r'"(\w+)"', question)
    if "background" in lowered or "behind" in lowered:
        return scene.background.name
    if kind == "presence" and re.search(r"in the word|contain|letter \"\w\"|have the letter", question):
        return "yes" if quoted[0] in only(texts) else "no"
    if kind == "presence":
        return "yes" if quoted[0] in texts else "no"
    if kind == "count":
        return str(len(only(texts)))
    if kind == "color":
        kinds = [w for w in scene.writings if w.kind in lowered]
        pool = [w for w in scene.writings if w.text in quoted] or (kinds if len(kinds) == 1 else scene.writings)
        return only(pool).color
    if kind == "relation" and quoted:
        first, second = (only([w for w in scene.writings if w.text == text]) for text in quoted)
        above = first.box.top + first.box.bottom < second.box.top + second.box.bottom
        return "yes" if above == bool(re.search("above|higher", lowered)) else "no"
    if kind == "relation":
        return "above" if only(scene.writings).box.center[1] < only(scene.things).center[1] else "below"
    if re.search("first letter|start|begin", lowered):
        return only(texts)[0]
    if re.search("last letter|end with", lowered):
        return only(texts)[-1]
    return reading_of(lowered, scene)


def reading_of(lowered, scene):
    lines = sorted(scene.writings, key=lambda w: w.box.top + w.box.bottom)
    if len(lines) == 1:
        return lines[0].text
    color = named(lowered)[1]
    if color:
        return only([w for w in lines if w.color == color]).text
    places = {"top|upper|first": 0, "second|middle": 1, "third": 2, "bottom|lower|last": -1}
    return next(lines[place].text for pattern, place in places.items() if re.search(pattern, lowered))


def check_chart(kind, question, scene):
    chart = scene.chart
    lowered = question.lower()
    labels = {bar.label: bar for bar in chart.bars}
    mentioned = [labels[word] for word in re.findall(r"[A-Za-z]+", question) if word in labels]
    for label in labels:  # a label may hold a word that means something: "Blow"
        lowered = re.sub(rf"\b{label.lower()}\b", "", lowered) if len(label) > 1 else lowered
    by_value = sorted(chart.bars, key=lambda bar: bar.value)
    low = re.search("small|short|low|less", lowered)
    if kind == "shape":
        return "bar chart"
    if kind == "count":
        return str(sum(b.value > mentioned[0].value for b in chart.bars) if mentioned else len(chart.bars))
    if kind == "color":
        return mentioned[0].color if mentioned else only(list({b.color for b in chart.bars}))
    if kind == "relation":
        first, second = mentioned
        return "yes" if (first.value < second.value) == bool(low) else "no"
    if kind == "presence":
        return check_chart_presence(lowered, chart, mentioned)
    if kind == "reading":
        color = named(lowered)[1]
        ends = {"leftmost|first|top": 0, "rightmost|last|bottom": -1}
        if color:
            return only([b for b in chart.bars if b.color == color]).label
        return next(chart.bars[k].label for pattern, k in ends.items() if re.search(pattern, lowered))
    if len(mentioned) == 2:
        return min(mentioned, key=lambda b: b.value if low else -b.value).label
    if mentioned:
        assert chart.readable
        return str(mentioned[0].value)
    if re.match(r"what is the (highest|largest) value|what is the value of", lowered):
        return str(by_value[-1].value)
    return by_value[0 if low else -1].label


def check_chart_presence(lowered, chart, mentioned):
    if "same" in lowered:
        return "yes" if len({b.color for b in chart.bars}) == 1 else "no"
    if "horizontal" in lowered or "lie" in lowered:
        return "yes" if chart.horizontal else "no"
    color = named(lowered)[1]
    if color and not mentioned:
        return "yes" if any(b.color == color for b in chart.bars) else "no"
    return "yes" if mentioned else "no"


def about_writing(kind, question, scene):
    """Whether a question is about free writing rather than about things."""
    if not scene.writings or not scene.things:
        return bool(scene.writings)
    if kind == "reading":
        return True
    text = r'"|letter|digit|word|text|writing|number (is|does|in)|the number[ ?]|How long'
    return bool(re.search(text, question, re.I)) and not re.search("number of", question, re.I)


def expected(kind, question, scene):
    if scene.chart is not None:
        return check_chart(kind, question, scene)
    if about_writing(kind, question, scene):
        return check_writings(kind, question, scene)
    return check_things(kind, question, scene)


def kind_of_choice(stem, options, scene):
    """What kind of question a choice holds, told by its options."""
    values = set(options.values())
    if values <= set(COLORS):
        return "color"
    if values <= set(SHAPES):
        return "shape"
    if scene.chart is not None:
        if re.search("how many|number of|count", stem.lower()):
            return "count"
        return "reading" if re.search("called|label (of|does)", stem.lower()) and not EXTREME.search(stem) else "chart"
    counting = re.search(r"how many|number of|count|how long", stem.lower())
    return "count" if counting else "reading"


EXTREME = re.compile(r"(tall|large|small)est", re.I)


@pytest.mark.parametrize(("level", "samples"), [(0, 250), (1, 250), (2, 300), (3, 700)])
def test_answers_are_true(level, samples):
    checked = Counter()
    world = World(seed=77, level=level)
    for index in range(samples):
        sample = world.sample(index)
        for question in sample.questions:
            text, kind, answer = question.question, question.kind, question.answer
            if kind == "choice":
                stem, options = split_choice(text)
                assert len(set(options.values())) == len(options) >= 2, text
                kind, text, answer = kind_of_choice(stem, options, sample.scene), stem, options[answer]
            right = expected(kind, text, sample.scene)
            right = right if isinstance(right, set) else {right}
            assert answer in right, (level, index, question, right, sample.caption)
            checked[question.kind] += 1
    assert min(checked.values()) > samples * 0.15
