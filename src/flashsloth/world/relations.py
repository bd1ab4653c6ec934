"""Questions about where things are, by themselves or to one another, and which is bigger.

In: a random stream and a `Scene` with things. Out: a `Draft`, or None where the scene does not allow the question.
"""

from random import Random

from flashsloth.world.captions import cell
from flashsloth.world.drafts import Draft
from flashsloth.world.references import BIGGER, EXTREME_SHARE, plain_name
from flashsloth.world.scene import Scene, Thing
from flashsloth.world.vocabulary import NO, POSITIONS, YES
from flashsloth.world.wordings import say

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
