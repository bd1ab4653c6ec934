"""Questions about free writing: what it says, its colour, its letters, its place.

In: a random stream and a `Scene` with writing on the background. Out: a `Draft`, or None.
"""

from __future__ import annotations

from random import Random

from flashsloth.world.question_templates import say
from flashsloth.world.referring_expressions import Draft
from flashsloth.world.scene import Scene, Writing
from flashsloth.world.vocabulary import COLORS, NO, YES, altered

NAMED_LINES = {2: (("top", "first", "upper"), ("bottom", "second", "lower")),
               3: (("top", "first"), ("middle", "second"), ("bottom", "third", "last"))}  # fmt: skip

GROUND_SHARE = 0.12  # of the questions of colour are about the background
SINGLE_DIGIT_SHARE = 0.1  # of the lone digits are counted

ABSENT_TRIES = 50
"""Texts tried before a question about one that is not there is given up."""


def _wrong_texts(rng: Random, scene: Scene, writing: Writing) -> list[str]:
    others = [other.text for other in scene.writings if other is not writing]
    drawn = dict.fromkeys(others + [altered(rng, writing.text) for _ in range(6)])
    return [text for text in drawn if text.lower() != writing.text.lower()][:3]


def _reference(rng: Random, writing: Writing, scene: Scene) -> str:
    """A name for one run of text that is its alone."""
    if len(scene.writings) == 1:
        return rng.choice(("the text", f"the {writing.kind}", "the writing", f"the {writing.kind}"))
    if [other.kind for other in scene.writings].count(writing.kind) == 1 and rng.random() < 0.6:
        return f"the {writing.kind}"
    return f'the {writing.kind} "{writing.text}"'


def ask_reading(rng: Random, scene: Scene) -> Draft | None:
    """What a run of text says, or one of its letters."""
    writing = rng.choice(scene.writings)
    wrong = _wrong_texts(rng, scene, writing)
    if len(scene.writings) > 1:
        if rng.random() < 0.5:
            return Draft("reading", say(rng, "read colored", which=writing.color), writing.text, wrong)
        order = sorted(scene.writings, key=lambda other: other.box.center[1])
        names = NAMED_LINES[len(order)][order.index(writing)]
        return Draft("reading", say(rng, "read which", which=rng.choice(names)), writing.text, wrong)
    if writing.kind == "word" and rng.random() < 0.25:
        place, topic = rng.choice(((0, "read first"), (-1, "read last")))
        return Draft("reading", say(rng, topic), writing.text[place])
    topic = "read word" if writing.kind == "word" or rng.random() < 0.2 else f"read {writing.kind}"
    if topic == "read word" and writing.kind != "word":
        return Draft("reading", rng.choice(("What is written in the picture?", "Read the text.")), writing.text, wrong)
    return Draft("reading", say(rng, topic), writing.text, wrong)


def ask_text_color(rng: Random, scene: Scene) -> Draft | None:
    """The colour of a run of text, sometimes of the background."""
    present = [writing.color for writing in scene.writings]
    if scene.background.can_be_named and rng.random() < GROUND_SHARE:
        right, question = str(scene.background.name), say(rng, "background")
    else:
        writing = rng.choice(scene.writings)
        right, question = writing.color, say(rng, "color of text", ref=_reference(rng, writing, scene))
    near = [name for name in dict.fromkeys(present) if name != right]
    far = [name for name in COLORS if name != right and name not in near]
    return Draft("color", question, right, near + rng.sample(far, 3))


def ask_text_presence(rng: Random, scene: Scene) -> Draft | None:
    """Whether a text is this one, or has some letter; half the answers are no."""
    writing = rng.choice(scene.writings)
    yes = rng.random() < 0.5
    if writing.kind == "word" and len(scene.writings) == 1 and rng.random() < 0.4:
        letters = set(writing.text.lower())
        pool = sorted(letters) if yes else sorted(set("abcdefghilmnoprstuwy") - letters)
        letter = rng.choice(pool)
        letter = letter.upper() if writing.text.isupper() else letter
        if writing.text.istitle() and yes and letter not in writing.text:
            letter = letter.upper()
        return Draft("presence", say(rng, "has letter", text=letter), YES if yes else NO)
    absent = None if yes else _absent_text(rng, scene, writing)
    yes, text = absent is None, absent or writing.text
    if len(scene.writings) > 1:
        return Draft("presence", say(rng, "shows", text=text), YES if yes else NO)
    return Draft("presence", say(rng, "says", sign=writing.kind, text=text), YES if yes else NO)


def _absent_text(rng: Random, scene: Scene, writing: Writing) -> str | None:
    """A text much like `writing` that neither holds nor is part of any text in the picture; None if none was found."""
    drawn = [other.text.lower() for other in scene.writings]
    for _ in range(ABSENT_TRIES):
        text = altered(rng, writing.text)
        if not any(text.lower() in other or other in text.lower() for other in drawn):
            return text
    return None


def ask_text_count(rng: Random, scene: Scene) -> Draft | None:
    """How many letters or digits the only text has."""
    if len(scene.writings) != 1 or scene.writings[0].kind == "letter" or any(t.writing for t in scene.things):
        return None
    writing = scene.writings[0]
    if len(writing.text) == 1 and rng.random() > SINGLE_DIGIT_SHARE:
        return None
    topic = "count letters" if writing.kind == "word" else "count digits"
    length = len(writing.text)
    wrong = [str(other) for other in (length - 2, length - 1, length + 1, length + 2) if other > 0]
    return Draft("count", say(rng, topic), str(length), rng.sample(wrong, min(3, len(wrong))))


def ask_text_relation(rng: Random, scene: Scene) -> Draft | None:
    """Which of two texts is above, or whether the text is above or below a thing."""
    if len(scene.writings) > 1:
        first, second = rng.sample(scene.writings, 2)
        side = rng.choice(("above", "below"))
        yes = (first.box.center[1] < second.box.center[1]) == (side == "above")
        return Draft("relation", say(rng, f"text {side}", text=first.text, other=second.text), YES if yes else NO)
    if len(scene.things) == 1:
        writing, thing = scene.writings[0], scene.things[0]
        answer = "above" if writing.box.center[1] < thing.center[1] else "below"
        return Draft("relation", say(rng, "text where", sign=writing.kind, ref=f"the {thing.shape}"), answer)
    return None
