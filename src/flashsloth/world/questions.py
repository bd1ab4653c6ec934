"""The questions of a picture: six to eight, of all the kinds that it allows, in any order.

In: a random stream and a `Scene`. Out: a list of `Question`, each with one true, short answer.

Those of the kind "unknown" suppose what is not there ("What color is the star?" where there is none), and their answer
is that it can't be told; whether it is there stays a question of presence, answered with no, and how many there are
stays one of counting, answered with 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from flashsloth.world import questions_about_charts, questions_about_things, questions_about_writing
from flashsloth.world.question_templates import say
from flashsloth.world.referring_expressions import Draft, called
from flashsloth.world.scene import Scene
from flashsloth.world.vocabulary import CAPITALS, COLORS, KINDS, NO, OPTION_LETTERS, SHAPES, UNKNOWN, article, plural

FEWEST, MOST = 6, 8
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
ATTEMPTS = 40  # drafts tried for one picture
TRIES = 6  # drafts tried for one question
MOST_OF_A_KIND = 3
OPTION_FORMATS = ("{letter}. {text}", "({letter}) {text}", "{letter}) {text}", "{letter}: {text}")
OPTION_COUNTS, OPTION_COUNT_WEIGHTS = (2, 3, 4), (20, 35, 45)
NOTHING_THERE_SHARE = 0.3  # of the questions about a picture of nothing
CHOICE_SOURCES = ("shape", "color", "count", "reading", "chart")

Ask = Callable[[Random, Scene], Draft | None]


@dataclass(frozen=True, slots=True)
class Question:
    """One question, its true answer, and its kind, one of `KINDS`."""

    kind: str
    question: str
    answer: str


def allowed(scene: Scene) -> dict[str, list[Ask]]:
    """For each kind, "choice" and "unknown" apart, the functions that may find a question of it in `scene`."""
    asks: dict[str, list[Ask]] = {kind: [] for kind in KINDS if kind not in ("choice", "unknown")}
    if scene.chart is not None:
        asks["shape"] += [questions_about_charts.ask_chart_shape]
        asks["chart"] += [questions_about_charts.ask_chart]
        asks["relation"] += [questions_about_charts.ask_chart_relation]
        asks["count"] += [questions_about_charts.ask_chart_count]
        asks["color"] += [questions_about_charts.ask_chart_color]
        asks["presence"] += [questions_about_charts.ask_chart_presence]
        asks["reading"] += [questions_about_charts.ask_chart_reading]
    if scene.things:
        asks["shape"] += [questions_about_things.ask_shape]
        asks["color"] += [questions_about_things.ask_color]
        asks["presence"] += [questions_about_things.ask_presence]
        asks["count"] += [questions_about_things.ask_count]
        asks["relation"] += [questions_about_things.ask_relation]
        if any(thing.writing for thing in scene.things):
            asks["reading"] += [questions_about_things.ask_inside]
            asks["color"] += [questions_about_things.ask_inside_color]
    if scene.writings:
        asks["color"] += [questions_about_writing.ask_text_color]
        asks["presence"] += [questions_about_writing.ask_text_presence]
        asks["count"] += [questions_about_writing.ask_text_count]
        asks["reading"] += [questions_about_writing.ask_reading]
        asks["relation"] += [questions_about_writing.ask_text_relation]
    return {kind: found for kind, found in asks.items() if found}


def sample_questions(rng: Random, scene: Scene) -> list[Question]:
    """The questions of `scene`, a balanced mixture, none twice."""
    asks = allowed(scene)
    main = ["chart", "chart"] if scene.chart is not None else ["reading"] if scene.writings else []
    kinds = [*asks, "choice", *main]  # what a picture of this sort is mostly asked gets a second share
    wanted = rng.randint(FEWEST, MOST)
    found: dict[str, Question] = {}
    taken = dict.fromkeys(kinds, 0)
    round_of_kinds: list[str] = []
    for _ in range(ATTEMPTS):
        if len(found) == wanted:
            break
        if not round_of_kinds:
            round_of_kinds = [kind for kind in kinds if taken[kind] < MOST_OF_A_KIND] or kinds[:]
            rng.shuffle(round_of_kinds)
        kind = round_of_kinds.pop()
        question = _choice(rng, scene, asks) if kind == "choice" else _plain(rng, scene, asks[kind])
        if question is not None and question.question not in found:
            found[question.question] = question
            taken[kind] += 1
    questions = list(found.values())
    rng.shuffle(questions)
    return questions


def with_unknown(rng: Random, scene: Scene, questions: list[Question], share: float) -> list[Question]:
    """The same questions, each with probability `share` replaced by one of what `scene` does not hold."""
    kept: dict[str, Question] = {}
    for question in questions:
        draft = ask_unknown(rng, scene) if rng.random() < share else None
        if draft is not None:
            question = Question(draft.kind, draft.question, draft.answer)
        kept.setdefault(question.question, question)
    return list(kept.values())


def questions_of_nothing(rng: Random, scene: Scene) -> list[Question]:
    """Questions about a picture of nothing: mostly what can't be told, and that things are not there."""
    found: dict[str, Question] = {}
    wanted = rng.randint(FEWEST, MOST)
    for _ in range(ATTEMPTS):
        if len(found) == wanted:
            break
        draft = _nothing_there(rng) if rng.random() < NOTHING_THERE_SHARE else ask_unknown(rng, scene)
        if draft is not None:
            found.setdefault(draft.question, Question(draft.kind, draft.question, draft.answer))
    return list(found.values())


def _nothing_there(rng: Random) -> Draft:
    shape = rng.choice(SHAPES)
    if rng.random() < 0.5:
        return Draft("presence", say(rng, "presence", a=article(shape)), NO)
    return Draft("count", say(rng, "count", noun=plural(shape)), "0")


def _plain(rng: Random, scene: Scene, asks: list[Ask]) -> Question | None:
    for _ in range(TRIES):
        draft = rng.choice(asks)(rng, scene)
        if draft is not None:
            return Question(draft.kind, draft.question, draft.answer)
    return None


def _choice(rng: Random, scene: Scene, asks: dict[str, list[Ask]]) -> Question | None:
    """A question with two to four lettered options; the answer is a letter, each as likely as the others."""
    kind = rng.choice([kind for kind in CHOICE_SOURCES if kind in asks])
    draft = rng.choice(asks[kind])(rng, scene)
    if draft is None or not draft.wrong:
        return None
    count = min(rng.choices(OPTION_COUNTS, OPTION_COUNT_WEIGHTS)[0], len(draft.wrong) + 1)
    options = [draft.answer, *draft.wrong[: count - 1]]
    rng.shuffle(options)
    style = rng.choice(OPTION_FORMATS)
    listed = [style.format(letter=letter, text=text) for letter, text in zip(OPTION_LETTERS, options, strict=False)]
    joint, first = rng.choice(((" ", " "), ("\n", "\n"), (" ", "\n")))
    question = draft.question + first + joint.join(listed) + say(rng, "choice")
    return Question("choice", question, OPTION_LETTERS[options.index(draft.answer)])


def ask_unknown(rng: Random, scene: Scene) -> Draft | None:
    """A question that supposes what `scene` does not hold."""
    if scene.texture is not None and rng.random() < VAGUE_SHARE:
        return _draft(say(rng, rng.choice(VAGUE_TOPICS)))
    if not _drawn_text(scene) and scene.axes is None and rng.random() < TEXT_SHARE:
        return _draft(say(rng, rng.choice(TEXT_TOPICS)))
    if scene.chart is None and rng.random() < CHART_SHARE:
        label, other = rng.sample(CAPITALS, 2)
        return _draft(say(rng, rng.choice(CHART_TOPICS), label=label, other=other))
    if scene.chart is not None and rng.random() < 0.5:
        return _about_absent_bar(rng, scene)
    return _about_absent_thing(rng, scene)


def _draft(question: str) -> Draft:
    return Draft("unknown", question, UNKNOWN)


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
