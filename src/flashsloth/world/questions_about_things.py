"""Questions about things: shape, colour, presence, count, what is written in them, where they are and which is bigger.

In: a random stream and a `Scene` with things. Out: a `Draft`, or None where the scene does not allow the question.
A thing is only asked about by a name that is its alone.
"""

from __future__ import annotations

from random import Random

from flashsloth.world.captions import cell
from flashsloth.world.question_templates import say
from flashsloth.world.referring_expressions import (
    BIGGER,
    EXTREME_SHARE,
    PLURAL_NOUNS,
    Draft,
    called,
    loosely,
    name_of,
    plain_name,
    sample_noun,
)
from flashsloth.world.scene import Scene, Thing
from flashsloth.world.vocabulary import COLORS, LOOSE_NAMES, NO, POSITIONS, SHAPES, YES, altered, article, plural

GROUND_SHARE = 0.12  # of the questions of colour are about the background
ABSENT_TRIES = 12  # near misses tried before a question is given up
MANY_SHARE = 0.2  # of the questions of presence ask "are there any"
CLEAR_SHARE = 0.08  # of a side: two centres this far apart, beyond half the things' extent, are clearly so
CELL_MARGIN = 0.045  # of a side: a thing this far from its ninth's inner border is clearly in it
MIDDLE_SHARE = 0.4  # of the things in the middle are asked about
SIDES: dict[str, tuple[tuple[str, ...], int, int]] = {  # words, axis, sign of the way from the other to the thing
    "left": (("to the left of", "left of"), 0, -1),
    "right": (("to the right of", "right of"), 0, 1),
    "above": (("above",), 1, -1),
    "below": (("below", "under"), 1, 1),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def _wrong(rng: Random, right: str, names: tuple[str, ...], present: list[str]) -> list[str]:
    """Three wrong answers: mostly names that the picture holds elsewhere, then others."""
    near = [name for name in dict.fromkeys(present) if name != right]
    rng.shuffle(near)
    loose = {right, *LOOSE_NAMES.get(right, ()), *(name for name, others in LOOSE_NAMES.items() if right in others)}
    far = [name for name in names if name not in loose and name not in near]
    return [name for name in near if name not in loose][:2] + rng.sample(far, min(3, len(far)))


def ask_shape(rng: Random, scene: Scene) -> Draft | None:
    """The shape of one thing."""
    thing = rng.choice(scene.things)
    wrong = _wrong(rng, thing.shape, SHAPES, [other.shape for other in scene.things])
    if len(scene.things) == 1 and rng.random() < 0.5:
        if rng.random() < 0.2 and not scene.writings and thing.writing is None:
            return Draft("shape", say(rng, "name only"), thing.name)
        return Draft("shape", say(rng, "shape only"), thing.shape, wrong)
    ref = name_of(rng, scene, thing, hide="shape")
    return Draft("shape", say(rng, "shape", ref=ref), thing.shape, wrong) if ref else None


def ask_color(rng: Random, scene: Scene) -> Draft | None:
    """The colour of one thing, sometimes of the background."""
    present = [thing.color for thing in scene.things]
    if scene.background.can_be_named and rng.random() < GROUND_SHARE:
        wrong = _wrong(rng, str(scene.background.name), COLORS, present)
        return Draft("color", say(rng, "background"), str(scene.background.name), wrong)
    thing = rng.choice(scene.things)
    wrong = _wrong(rng, thing.color, COLORS, present)
    if len(scene.things) == 1 and not scene.writings and thing.writing is None and rng.random() < 0.25:
        return Draft("color", say(rng, "color only"), thing.color, wrong)
    ref = name_of(rng, scene, thing, hide="color")
    return Draft("color", say(rng, "color", ref=ref), thing.color, wrong) if ref else None


def ask_presence(rng: Random, scene: Scene) -> Draft | None:
    """Whether a thing is there: half the answers are no, most of these nearly right."""
    yes = rng.random() < 0.5
    for _ in range(ABSENT_TRIES):
        thing = rng.choice(scene.things)
        form = rng.choices(("both", "shape", "color"), (60, 25, 15))[0]
        shape, color = (thing.shape, thing.color) if yes else _changed(rng, thing, form)
        if yes or _absent(scene, form, shape, color):
            noun = {"both": f"{color} {shape}", "shape": shape, "color": f"{color} {sample_noun(rng)}"}[form]
            if rng.random() < MANY_SHARE:
                return Draft("presence", say(rng, "presence many", noun=plural(noun)), YES if yes else NO)
            return Draft("presence", say(rng, "presence", a=article(noun)), YES if yes else NO)
    return None


def _changed(rng: Random, thing: Thing, form: str) -> tuple[str, str]:
    """The thing's shape and colour with one of the two changed: a thing that nearly is there."""
    if form == "shape" or (form == "both" and rng.random() < 0.45):
        return rng.choice([name for name in SHAPES if name != thing.shape]), thing.color
    return thing.shape, rng.choice([name for name in COLORS if name != thing.color])


def _absent(scene: Scene, form: str, shape: str, color: str) -> bool:
    """Whether no thing could be meant by the shape, the colour, or both."""
    if form == "color":
        return all(other.color != color for other in scene.things)
    rivals = [other for other in scene.things if form == "shape" or other.color == color]
    return not any(other.shape == shape or called(other, shape) for other in rivals)


def ask_count(rng: Random, scene: Scene) -> Draft | None:
    """How many things, or how many of one shape, one colour or both; rarer answers are preferred."""
    things = scene.things
    nouns = [(_plural_noun(rng, scene), len(things))]
    shapes = [name for name in SHAPES if not loosely(things, name)]
    for shape in [thing.shape for thing in things] + rng.sample(SHAPES, 1):
        if shape in shapes:
            nouns.append((plural(shape), sum(thing.shape == shape for thing in things)))
    for color in [thing.color for thing in things] + rng.sample(COLORS, 1):
        nouns.append((f"{color} {_plural_noun(rng, scene)}", sum(thing.color == color for thing in things)))
    for thing in things:
        color = rng.choice((thing.color, rng.choice(things).color))
        if thing.shape in shapes:
            count = sum(other.name == f"{color} {thing.shape}" for other in things)
            nouns.append((f"{color} {plural(thing.shape)}", count))
    answers = sorted({count for _, count in nouns})
    weights = [{0: 0.5, 1: 0.55}.get(count, 1.0 + 0.15 * count) for count in answers]
    answer = rng.choices(answers, weights)[0]
    noun = rng.choice([noun for noun, count in nouns if count == answer])
    near = [str(count) for count in range(max(0, answer - 2), answer + 4) if count != answer]
    rng.shuffle(near)
    return Draft("count", say(rng, "count", noun=noun), str(answer), near[:3])


def _plural_noun(rng: Random, scene: Scene) -> str:
    return "shapes" if scene.writings else rng.choice(PLURAL_NOUNS)


def ask_inside(rng: Random, scene: Scene) -> Draft | None:
    """The letter or digit that is written in a thing."""
    labelled = [thing for thing in scene.things if thing.writing is not None]
    if not labelled:
        return None
    thing = rng.choice(labelled)
    writing = thing.writing
    if writing is None:
        return None
    if len(labelled) == 1 and rng.random() < 0.3 and not scene.writings:
        question = say(rng, f"read {writing.kind}")
    else:
        ref = plain_name(scene, rng, thing)
        if ref is None:
            return None
        question = say(rng, "read inside", ref=ref, sign=writing.kind)
    wrong = list(dict.fromkeys(altered(rng, writing.text) for _ in range(6)))[:3]
    return Draft("reading", question, writing.text, [text for text in wrong if text != writing.text])


def ask_inside_color(rng: Random, scene: Scene) -> Draft | None:
    """The colour of the letter or digit that is written in a thing."""
    thing = rng.choice([thing for thing in scene.things if thing.writing is not None])
    ref = plain_name(scene, rng, thing)
    if ref is None or thing.writing is None:
        return None
    sign = f"the {thing.writing.kind} in {ref}"
    question = say(rng, "color of text", ref=sign)
    return Draft("color", question, thing.writing.color, _wrong(rng, thing.writing.color, COLORS, [thing.color]))


def ask_relation(rng: Random, scene: Scene) -> Draft | None:
    """Where things are, by themselves or to one another, and which is bigger."""
    if len(scene.things) == 1:
        return rng.choice((_ask_where, _ask_where, _ask_half, _ask_side))(rng, scene)
    asks = (_ask_side_of, _ask_neighbour, _ask_bigger, _ask_where, _ask_half, _ask_side)
    return rng.choices(asks, (40, 22, 16, 10, 6, 6))[0](rng, scene)


def clearly(side: str, thing: Thing, other: Thing, scene: Scene) -> bool:
    """Whether `thing` is on that `side` of `other` beyond doubt."""
    _, axis, sign = SIDES[side]
    extents = (thing.box.width + other.box.width, thing.box.height + other.box.height)
    lead = sign * (thing.center[axis] - other.center[axis])
    return lead > 0.25 * extents[axis] + CLEAR_SHARE * (scene.width, scene.height)[axis]


def _ask_side_of(rng: Random, scene: Scene) -> Draft | None:
    thing, other = rng.sample(scene.things, 2)
    side = rng.choice(tuple(SIDES))
    yes = rng.random() < 0.5
    if not clearly(side if yes else OPPOSITE[side], thing, other, scene):
        return None
    ref, other_ref = plain_name(scene, rng, thing), plain_name(scene, rng, other)
    if ref is None or other_ref is None:
        return None
    return Draft("relation", say(rng, side, ref=ref, other=other_ref), YES if yes else NO)


def _ask_neighbour(rng: Random, scene: Scene) -> Draft | None:
    other = rng.choice(scene.things)
    side = rng.choice(tuple(SIDES))
    words, axis, sign = SIDES[side]
    beside = [t for t in scene.things if t is not other and sign * (t.center[axis] - other.center[axis]) > 0]
    ref = plain_name(scene, rng, other)
    if len(beside) != 1 or not clearly(side, beside[0], other, scene) or ref is None or scene.writings:
        return None
    rest = [t for t in scene.things if t is not other and t is not beside[0]]
    if not all(clearly(OPPOSITE[side], t, other, scene) for t in rest):
        return None
    thing, phrase = beside[0], rng.choice(words)
    form = rng.choices(("name", "shape", "color"), (60, 20, 20))[0]
    if form == "name":
        return Draft("relation", say(rng, "neighbour", side=phrase, ref=ref), thing.name)
    answer = thing.shape if form == "shape" else thing.color
    return Draft("relation", say(rng, f"neighbour {form}", side=phrase, ref=ref), answer)


def _ask_bigger(rng: Random, scene: Scene) -> Draft | None:
    thing, other = rng.sample(scene.things, 2)
    if max(thing.area, other.area) < BIGGER * min(thing.area, other.area) or thing.stroke or other.stroke:
        return None
    ref, other_ref = plain_name(scene, rng, thing), plain_name(scene, rng, other)
    if ref is None or other_ref is None:
        return None
    word = rng.choice(("bigger", "smaller"))
    ahead = (thing.area > other.area) == (word == "bigger")
    if rng.random() < 0.4:
        return Draft("relation", say(rng, f"is {word}", ref=ref, other=other_ref), YES if ahead else NO)
    winner = ref if ahead else other_ref
    return Draft("relation", say(rng, word, ref=ref, other=other_ref), winner.removeprefix("the "))


def _ask_where(rng: Random, scene: Scene) -> Draft | None:
    thing = rng.choice(scene.things)
    shares = thing.center[0] / scene.width, thing.center[1] / scene.height
    if any(abs(share - border) < CELL_MARGIN for share in shares for border in (1 / 3, 2 / 3)):
        return None
    ref, place = plain_name(scene, rng, thing), POSITIONS[cell(scene, thing.center)]
    if ref is None or (place == "middle" and rng.random() > MIDDLE_SHARE):
        return None
    return Draft("relation", say(rng, "where", ref=ref), place)


def _ask_half(rng: Random, scene: Scene) -> Draft | None:
    thing = rng.choice(scene.things)
    half = rng.choice(("left", "right", "top", "bottom", "upper", "lower"))
    axis = 0 if half in ("left", "right") else 1
    share = thing.center[axis] / (scene.width, scene.height)[axis]
    ref = plain_name(scene, rng, thing)
    if abs(share - 0.5) < EXTREME_SHARE or ref is None:
        return None
    low = half in ("left", "top", "upper")
    return Draft("relation", say(rng, "half", ref=ref, half=half), YES if (share < 0.5) == low else NO)


def _ask_side(rng: Random, scene: Scene) -> Draft | None:
    thing = rng.choice(scene.things)
    axis = rng.choice((0, 1))
    share = thing.center[axis] / (scene.width, scene.height)[axis]
    ref = plain_name(scene, rng, thing)
    if abs(share - 0.5) < EXTREME_SHARE or ref is None:
        return None
    answer = (("left", "right"), ("top", "bottom"))[axis][share > 0.5]
    return Draft("relation", say(rng, ("side", "height")[axis], ref=ref), answer)
