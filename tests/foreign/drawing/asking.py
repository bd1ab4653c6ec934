"""Questions about a foreign picture, and their answers, from its plan alone.

In: a `Plan`. Out: a list of `{"kind", "question", "answer"}`. The wordings are written for this set.
"""

from __future__ import annotations

from random import Random

from plans import COLORS, SHAPES, Bars, Item, Plan

UNKNOWN = "I can't tell"
LOOSE = {"square": ("rectangle", "diamond"), "circle": ("oval",), "rectangle": ("square",), "oval": ("circle",)}
"""Shapes that a careful reader might also call by this name."""
LIKENESSES = {
    "markers": ("rectangle", "square"), "button": ("rectangle", "square"), "curve": ("rectangle", "square"),
    "imshow": ("circle", "oval"), "contour": ("circle", "oval"), "radial": ("circle", "oval"),
}  # fmt: skip
"""Styles that draw, beside what is asked about, what might be taken for one of these: frames, boxes, blobs."""
MOST = 5
CLEAR_RATIO = 1.5
CLOSE_VALUES = 2
LETTERED = "ABCD"
Asked = dict[str, str]


def questions_of(plan: Plan) -> list[Asked]:
    """At most MOST questions; one at least of what the picture does not hold, in half of them."""
    rng = plan.stream
    if plan.items:
        found = _about_items(rng, plan)
    elif plan.lines:
        found = _about_lines(rng, plan)
    elif plan.bars is not None:
        found = _about_bars(rng, plan.bars)
    else:
        return _about_nothing(rng, plan)
    absent = _absent(rng, plan) if rng.random() < 0.5 else []
    rng.shuffle(found)
    kept: dict[str, Asked] = {}
    for kind in dict.fromkeys(item["kind"] for item in found):  # one of each kind first
        first = next(item for item in found if item["kind"] == kind)
        kept[first["question"]] = first
    for item in found:
        kept.setdefault(item["question"], item)
    return [*list(kept.values())[: MOST - len(absent)], *absent]


def _ask(kind: str, question: str, answer: str) -> Asked:
    return {"kind": kind, "question": question, "answer": answer}


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def _names(items: list[Item]) -> dict[int, str]:
    """For each item that can be named shortly, its name: by its shape, by both, or not at all."""
    names = {}
    for number, item in enumerate(items):
        alike = [other for other in items if other.shape in (item.shape, *LOOSE.get(item.shape, ()))]
        if len(alike) == 1:
            names[number] = item.shape
        elif sum(other.color == item.color for other in alike) == 1:
            names[number] = f"{item.color} {item.shape}"
    return names


def _choice(rng: Random, question: str, answer: str, wrong: list[str]) -> Asked:
    options = [answer, *rng.sample(wrong, 3)]
    rng.shuffle(options)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERED, options, strict=True))
    return _ask("choice", f"{question}\n{listed}\nAnswer with the letter.", LETTERED[options.index(answer)])


def _about_items(rng: Random, plan: Plan) -> list[Asked]:
    items, found = plan.items, []
    shapes, colors = [item.shape for item in items], [item.color for item in items]
    if len(items) == 1:
        found.append(_ask("shape", rng.choice(("What shape is this?", "Which shape is drawn?")), shapes[0]))
        found.append(_ask("color", "What color is the shape?", colors[0]))
    for number, name in _names(items).items():
        item = items[number]
        if name == item.shape and len(items) > 1:
            found.append(_ask("color", f"What color is the {name}?", item.color))
            far = [color for color in COLORS if color not in colors]
            found.append(_choice(rng, f"Which color does the {name} have?", item.color, far))
        if colors.count(item.color) == 1:
            found.append(_ask("shape", f"What shape is the {item.color} object?", item.shape))
    present = rng.choice(items)
    found.append(_ask("presence", f"Is there {_a(f'{present.color} {present.shape}')}?", "yes"))
    missing = _missing_shapes(plan)
    found.append(_ask("presence", f"Can you see {_a(rng.choice(missing))}?", "no"))
    found.append(
        _ask("count", rng.choice(("How many shapes are there?", "How many objects do you see?")), str(len(items)))
    )
    repeated = rng.choice(shapes)
    if not any(shape in LOOSE.get(repeated, ()) for shape in shapes):
        found.append(_ask("count", f"How many {_plural(repeated)} are there?", str(shapes.count(repeated))))
    return found + _about_places(rng, items)


def _about_places(rng: Random, items: list[Item]) -> list[Asked]:
    names = _names(items)
    found = []
    for number, name in names.items():
        item = items[number]
        if item.column != 1:
            side = "left" if item.column == 0 else "right"
            found.append(_ask("relation", f"Is the {name} on the left or on the right?", side))
        if item.row != 1:
            found.append(
                _ask("relation", f"Is the {name} at the top or at the bottom?", ("top", "", "bottom")[item.row])
            )
    for first, second in [(a, b) for a in names for b in names if a != b]:
        one, other = items[first], items[second]
        if one.column != other.column:
            truth = one.column < other.column
            question = f"Is the {names[first]} to the left of the {names[second]}?"
            found.append(_ask("relation", question, "yes" if truth else "no"))
        if one.row != other.row:
            question = f"Is the {names[first]} above the {names[second]}?"
            found.append(_ask("relation", question, "yes" if one.row < other.row else "no"))
        if one.size > CLEAR_RATIO * other.size:
            pair = [names[first], names[second]]
            rng.shuffle(pair)
            found.append(_ask("relation", f"Which is bigger, the {pair[0]} or the {pair[1]}?", names[first]))
    return rng.sample(found, min(2, len(found)))


def _missing_shapes(plan: Plan) -> list[str]:
    """Shapes that are not there and that nothing there could be taken for."""
    shapes = [item.shape for item in plan.items]
    near = {loose for shape in shapes for loose in LOOSE.get(shape, ())} | {
        name for name, loose in LOOSE.items() if set(loose) & set(shapes)
    }
    near |= set(LIKENESSES.get(plan.style, ()))
    near |= set() if plan.items or plan.lines else {"rectangle", "square"}  # bars, or the whole picture
    return [shape for shape in SHAPES if shape not in shapes and shape not in near]


def _about_lines(rng: Random, plan: Plan) -> list[Asked]:
    found = []
    if len(plan.lines) == 1:
        line = plan.lines[0]
        what = {"word": ("What word is this?", "What does it say?"), "number": ("What number is this?",)}[line.kind]
        found.append(_ask("reading", rng.choice(what), line.text))
        found.append(_ask("color", f"What color is the {line.kind}?", line.color))
        found.append(_ask("presence", f'Does it say "{line.text}"?', "yes"))
        if line.kind == "word":
            found.append(_ask("count", "How many letters does the word have?", str(len(line.text))))
            found.append(_ask("reading", "What is the first letter of the word?", line.text[0]))
    else:
        top, bottom = plan.lines
        found.append(_ask("reading", "What does the top text say?", top.text))
        found.append(_ask("reading", f"What does the {bottom.color} text say?", bottom.text))
        above = rng.random() < 0.5
        pair = (top, bottom) if above else (bottom, top)
        found.append(_ask("relation", f'Is "{pair[0].text}" above "{pair[1].text}"?', "yes" if above else "no"))
        found.append(_ask("color", f'What color is the word "{top.text}"?', top.color))
    found.append(_ask("presence", "Is there a star in the picture?", "no"))
    return found


def _about_bars(rng: Random, bars: Bars) -> list[Asked]:
    by_value = sorted(zip(bars.values, bars.labels, strict=True))
    largest, smallest = by_value[-1], by_value[0]
    found = [
        _ask("chart", "Which bar is the largest?" if bars.horizontal else "Which bar is the tallest?", largest[1]),
        _ask("chart", "Which bar is the smallest?", smallest[1]),
        _ask("count", "How many bars are there?", str(len(bars.labels))),
        _ask("color", "What color are the bars?", bars.color),
        _ask("presence", "Are the bars horizontal?", "yes" if bars.horizontal else "no"),
    ]
    value, label = rng.choice(by_value)
    if bars.numbered:
        found.append(_ask("chart", f"What is the value of {label}?", str(value)))
    pair = rng.sample(by_value, 2)
    if abs(pair[0][0] - pair[1][0]) >= CLOSE_VALUES:
        found.append(_ask("chart", f"Which is larger, {pair[0][1]} or {pair[1][1]}?", max(pair)[1]))
        truth = "yes" if pair[0][0] > pair[1][0] else "no"
        found.append(_ask("relation", f"Is {pair[0][1]} larger than {pair[1][1]}?", truth))
    return found


def _absent(rng: Random, plan: Plan) -> list[Asked]:
    """One question that supposes what is not there."""
    shape = rng.choice(_missing_shapes(plan))
    options = [f"What color is the {shape}?", f"Where is the {shape}?", f"What is to the left of the {shape}?"]
    if not plan.lines and plan.bars is None and plan.style != "markers":  # an axis has numbers
        options += ["What does the text say?", "What word is written here?"]
    if plan.bars is None:
        options += ["Which bar is the tallest?"]
    return [_ask("unknown", rng.choice(options), UNKNOWN)]


def _about_nothing(rng: Random, plan: Plan) -> list[Asked]:
    shape, other, third = rng.sample(_missing_shapes(plan), 3)
    found = [
        "What shape is this?", f"What color is the {shape}?", "What does the text say?", f"Where is the {other}?",
        f"Is the {shape} on the left or on the right?", f"What is above the {other}?", "What word is written here?",
    ]  # fmt: skip
    if plan.style != "curve":
        found.append("Which bar is the tallest?")
    asked = [_ask("unknown", question, UNKNOWN) for question in rng.sample(found, 3)]
    return [*asked, _ask("presence", f"Is there {_a(third)}?", "no")]
