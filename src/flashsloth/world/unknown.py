"""Questions about what a picture does not hold, whose answer is that it can't be told.

In: a random stream and a `Scene`. Out: a `Draft` of the kind "unknown". They suppose what is not there ("What color is
the star?" where there is none); whether it is there stays a question of presence, answered with no, and how many there
are stays one of counting, answered with 0.
"""

from random import Random

from flashsloth.world.lexicon import CAPITALS
from flashsloth.world.references import Draft, called
from flashsloth.world.scene import Scene
from flashsloth.world.vocabulary import COLORS, SHAPES, UNKNOWN
from flashsloth.world.wordings import say

TOPICS = ("color", "where", "side", "height", "neighbour", "neighbour color", "shape of color", "bigger")
TOPIC_WEIGHTS = (30, 14, 6, 4, 12, 6, 18, 10)
SIDES = ("to the left of", "to the right of", "above", "below")
TEXT_TOPICS = ("read word", "read letter", "read number", "count letters")
CHART_TOPICS = ("chart largest", "chart smallest", "chart value", "chart bars color", "chart compare")
TEXT_SHARE, CHART_SHARE = 0.25, 0.15
"""Of the questions about a picture without text, or without a chart, that ask for these."""
VAGUE_TOPICS = ("shape only", "color only", "name only")
VAGUE_SHARE = 0.35
"""Of the questions about a picture of nothing."""
BARE_SHARE, NEARLY_SHARE = 0.6, 0.3
"""Of the names of absent things: without a colour; of a shape that is there, in a colour that is not."""
LEAST_ABSENT = 2
LETTER_SHAPES = {"o": ("circle", "oval"), "0": ("circle", "oval"), "x": ("cross",), "t": ("cross",)}
"""Letters and digits that might be taken for a shape."""


def ask_unknown(rng: Random, scene: Scene) -> Draft | None:
    """A question that supposes what `scene` does not hold."""
    if scene.texture is not None and rng.random() < VAGUE_SHARE:
        return _draft(say(rng, rng.choice(VAGUE_TOPICS)))
    if _without_text(scene) and rng.random() < TEXT_SHARE:
        return _draft(say(rng, rng.choice(TEXT_TOPICS)))
    if scene.chart is None and rng.random() < CHART_SHARE:
        label, other = rng.sample(CAPITALS, 2)
        return _draft(say(rng, rng.choice(CHART_TOPICS), label=label, other=other))
    if scene.chart is not None and rng.random() < 0.5:
        return _about_absent_bar(rng, scene)
    return _about_absent_thing(rng, scene)


def _draft(question: str) -> Draft:
    return Draft("unknown", question, UNKNOWN)


def _without_text(scene: Scene) -> bool:
    return not _drawn_text(scene) and scene.axes is None


def _drawn_text(scene: Scene) -> str:
    """All that is written, one after the other."""
    texts = [writing.text for writing in scene.writings] + [
        thing.writing.text for thing in scene.things if thing.writing
    ]
    texts += [writing.text for writing in scene.chart.writings] if scene.chart is not None else []
    return "".join(texts)


def _about_absent_bar(rng: Random, scene: Scene) -> Draft:
    assert scene.chart is not None
    drawn = _drawn_text(scene) + "".join(bar.label for bar in scene.chart.bars)
    label = rng.choice([letter for letter in CAPITALS if letter not in drawn])
    return _draft(say(rng, rng.choice(("chart value", "chart bar color")), label=label))


def _about_absent_thing(rng: Random, scene: Scene) -> Draft | None:
    """Its colour, its place, or what is beside it."""
    shapes, colors = absent_shapes(scene), absent_colors(scene)
    topic = rng.choices(TOPICS, TOPIC_WEIGHTS)[0]
    if len(shapes) < LEAST_ABSENT or not colors:
        return None
    if topic == "shape of color":
        ref = f"the {rng.choice(colors)} {rng.choice(('thing', 'shape', 'object'))}"
        return _draft(say(rng, "shape", ref=ref))
    shape, other = rng.sample(shapes, LEAST_ABSENT)
    ref = f"the {shape}" if rng.random() < BARE_SHARE else f"the {rng.choice(COLORS)} {shape}"
    if scene.things and topic != "color" and rng.random() < NEARLY_SHARE:  # the shape is there, in another colour
        ref = f"the {rng.choice(colors)} {rng.choice(scene.things).shape}"
    return _draft(say(rng, topic, ref=ref, other=f"the {other}", side=rng.choice(SIDES)))


def absent_shapes(scene: Scene) -> list[str]:
    """Shapes that nothing in `scene` could be called or taken for."""
    text = _drawn_text(scene).lower()
    alike = {shape for letter, shapes in LETTER_SHAPES.items() if letter in text for shape in shapes}
    if scene.chart is not None or scene.axes is not None or scene.background.style == "grid":
        alike |= {"rectangle", "square"}
    things = [shape for shape in SHAPES if any(thing.shape == shape or called(thing, shape) for thing in scene.things)]
    return [shape for shape in SHAPES if shape not in alike and shape not in things]


def absent_colors(scene: Scene) -> list[str]:
    """Colours of nothing in `scene`, its writing and its background left out too."""
    used = {thing.color for thing in scene.things} | {writing.color for writing in scene.writings}
    used |= {thing.writing.color for thing in scene.things if thing.writing is not None}
    used |= {bar.color for bar in scene.chart.bars} if scene.chart is not None else set()
    return [name for name in COLORS if name not in used and name != scene.background.name]
