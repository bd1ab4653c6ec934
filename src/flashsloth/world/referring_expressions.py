"""Names of things: ways to speak of one thing that fit no other in the picture; and questions before they are final.

In: a random stream, a `Scene`, one of its things. Out: "the circle", "the red shape", "the leftmost object", or None.
What the `ask_...` functions find by such names is a `Draft`, which `questions` turns into a `Question`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from flashsloth.world.scene import Scene, Thing
from flashsloth.world.vocabulary import LOOSE_NAMES

EXTREME_SHARE = 0.1  # of a side: the leftmost thing leads the next by so much
BIGGER = 1.6  # times the area of the smaller one

ONLY_NAMES = ("the object", "the shape", "this shape", "this object")
SIDE_NAMES = (  # left, right, top, bottom
    ("the leftmost {noun}", "the {noun} on the left", "the {noun} furthest to the left"),
    ("the rightmost {noun}", "the {noun} on the right", "the {noun} furthest to the right"),
    ("the topmost {noun}", "the {noun} at the top", "the highest {noun}"),
    ("the bottommost {noun}", "the {noun} at the bottom", "the lowest {noun}"),
)
BIGGEST_NAMES = ("the biggest {noun}", "the largest {noun}")
SMALLEST_NAMES = ("the smallest {noun}",)
WRITTEN_NAMES = ('the {noun} with the {sign} "{text}"', 'the {noun} with "{text}" in it')
NOUNS, PLURAL_NOUNS = ("object", "shape"), ("objects", "shapes")
NAME_PHRASES = (
    *ONLY_NAMES, *(name for names in SIDE_NAMES for name in names), *BIGGEST_NAMES, *SMALLEST_NAMES, *WRITTEN_NAMES,
    *NOUNS, *PLURAL_NOUNS,
)  # fmt: skip


def sample_noun(rng: Random) -> str:
    return rng.choice(NOUNS)


def _alone(things: list[Thing], fits: Callable[[Thing], bool]) -> bool:
    return sum(map(fits, things)) == 1


def references(rng: Random, scene: Scene, thing: Thing, hide: str = "") -> list[str]:
    """Ways to name `thing` that fit no other; `hide` "color" or "shape" leaves out names that would give it away."""
    things = scene.things
    noun = sample_noun(rng)
    if len(things) == 1 and rng.random() < 0.5:
        return list(ONLY_NAMES)
    found: list[str] = []
    is_only_one = _alone(things, lambda other: other.shape == thing.shape)
    if hide != "shape" and is_only_one and not loosely(things, thing.shape):
        found += [f"the {thing.shape}"] * 2
    if hide != "color" and _alone(things, lambda other: other.color == thing.color):
        found += [f"the {thing.color} {noun}"] * (3 if hide else 1)
    if not hide and _alone(things, lambda other: other.name == thing.name):
        found += [f"the {thing.name}"] * 3
    if len(things) > 1:
        found += _extremes(rng, scene, thing, noun)
    if thing.writing is not None:
        found += [form.format(noun=noun, sign=thing.writing.kind, text=thing.writing.text) for form in WRITTEN_NAMES]
    return found


def loosely(things: list[Thing], shape: str) -> bool:
    """Whether a thing in the picture might also be called `shape`, or be meant by it."""
    return any(called(other, shape) for other in things)


def _extremes(rng: Random, scene: Scene, thing: Thing, noun: str) -> list[str]:
    """ "the leftmost shape" and its like, where they are clear."""
    found = []
    others = [other for other in scene.things if other is not thing]
    sides = scene.width, scene.height
    for index, (axis, sign) in enumerate(((0, -1), (0, 1), (1, -1), (1, 1))):
        lead = min(sign * (thing.center[axis] - other.center[axis]) for other in others)
        if lead > EXTREME_SHARE * sides[axis] and scene.writings == []:
            found.append(rng.choice(SIDE_NAMES[index]).format(noun=noun))
    if all(thing.area > BIGGER * other.area for other in others):
        found.append(rng.choice(BIGGEST_NAMES).format(noun=noun))
    if all(thing.area * BIGGER < other.area for other in others):
        found.append(rng.choice(SMALLEST_NAMES).format(noun=noun))
    return found


def name_of(rng: Random, scene: Scene, thing: Thing, hide: str = "") -> str | None:
    found = references(rng, scene, thing, hide)
    return rng.choice(found) if found else None


def plain_name(scene: Scene, rng: Random, thing: Thing) -> str | None:
    """A name by shape and colour alone: places and sizes would give the answer away."""
    named = [other.name for other in scene.things].count(thing.name) == 1
    if named and rng.random() < 0.6:
        return f"the {thing.name}"
    if [other.shape for other in scene.things].count(thing.shape) == 1 and not loosely(scene.things, thing.shape):
        return f"the {thing.shape}"
    return f"the {thing.name}" if named else None


def called(thing: Thing, shape: str) -> bool:
    """Whether `thing`, by another name, might be taken for a `shape`."""
    return shape in LOOSE_NAMES.get(thing.shape, ()) or thing.shape in LOOSE_NAMES.get(shape, ())


@dataclass(slots=True)
class Draft:
    """A question of some kind, its true answer, and plausible wrong ones (none where a choice makes no sense)."""

    kind: str
    question: str
    answer: str
    wrong: list[str] = field(default_factory=list)
