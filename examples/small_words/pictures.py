"""Square pictures of things with one word or number, large or small, drawn by program; with questions.

In: a seed, a split and an index. Out: a `Drawn`: the picture, its native size, and questions with one true answer.

About half of the words are small: in a view of 120 px their capitals are 4 to 6 px tall, half of what FlashSloth-Nano
reads; in a tile of 2 x 2, of the same 120 px, they are twice as tall. The others are large in the view itself. A word
stands within one quarter of the picture, things in the half above or below it.
"""

from dataclasses import dataclass
from random import Random

from PIL import Image

from flashsloth.world.background import sample_background
from flashsloth.world.colors import sample_legible
from flashsloth.world.compose import place_things
from flashsloth.world.fonts import font
from flashsloth.world.question_templates import say
from flashsloth.world.questions import Question
from flashsloth.world.questions_about_things import ask_color, ask_count, ask_presence, ask_shape
from flashsloth.world.scene import Box, Scene, Writing
from flashsloth.world.text import MODEL_SIDE, font_size, sample_face, under_of, write_at
from flashsloth.world.vocabulary import COMMON, sample_number
from flashsloth.world.world import render

SIDES = (240, 288, 320, 360)
"""Native sides, px: at least the 240 px that 2 x 2 tiles show."""
SMALL_CAP, LARGE_CAP = (4.0, 6.0), (9.0, 15.0)
"""Cap heights in px of the whole view."""
SMALL_SHARE, NUMBER_SHARE = 0.5, 0.3
DIGITS, LETTERS = 2, 3
WORDS = tuple(word.upper() for word in COMMON if len(word) == LETTERS)
INKS = ("black", "red", "blue", "green", "purple", "brown")
READING, WHOLE = "reading", ("shape", "color", "presence", "count")
THING_COUNTS = (1, 2, 3)
MARGIN = 0.02
TRIES = 20


@dataclass(frozen=True)
class Drawn:
    """One picture.

    Attributes:
        image: RGB.
        small: whether its word is small.
        reading: the questions about the word.
        others: questions about the things, which the whole view answers.
    """

    image: Image.Image
    small: bool
    reading: list[Question]
    others: list[Question]


def draw(seed: int, split: str, index: int, small_share: float = SMALL_SHARE) -> Drawn:
    """The picture with this number; the same for the same four."""
    name = f"small words/{seed}/{split}/{index}"
    rng = Random(name)
    side = rng.choice(SIDES)
    scene = Scene(side, side, sample_background(rng, plainer=True))
    small = rng.random() < small_share
    writing = None
    while writing is None:
        writing = _write(rng, scene, small)
    scene.writings.append(writing)
    above = writing.box.center[1] > side / 2
    half = Box(0, 0, side, side / 2) if above else Box(0, side / 2, side, side)
    scene.things = place_things(rng, half, scene.background, rng.choice(THING_COUNTS), 0.3)
    return Drawn(render(scene, Random(f"{name}/pixels")), small, _reading(rng, writing), _others(rng, scene))


def _write(rng: Random, scene: Scene, small: bool) -> Writing | None:
    """A word or a number within one quarter of the picture, in a colour that stands out; None if it does not fit."""
    text, kind = (sample_number(rng, DIGITS), "number") if rng.random() < NUMBER_SHARE else (rng.choice(WORDS), "word")
    cap = rng.uniform(*(SMALL_CAP if small else LARGE_CAP)) * scene.width / MODEL_SIDE
    face = sample_face(rng)
    size = font_size(face, cap)
    left, top, right, bottom = font(face, size).getbbox(text, anchor="ls")
    width, height = right - left, bottom - top
    half, margin = scene.width / 2, MARGIN * scene.width
    free_x, free_y = half - 2 * margin - width, half - 2 * margin - height
    ink = sample_legible(rng, under_of(scene.background), INKS)
    if free_x < 0 or free_y < 0 or ink is None:
        return None
    x = rng.choice((0, half)) + margin + width / 2 + rng.uniform(0, free_x)
    y = rng.choice((0, half)) + margin + height / 2 + rng.uniform(0, free_y)
    return write_at(text, kind, *ink, face, size, (x, y))


def _reading(rng: Random, writing: Writing) -> list[Question]:
    topic = "read word" if writing.kind == "word" else "read number"
    return [Question(READING, say(rng, topic), writing.text)]


def _others(rng: Random, scene: Scene) -> list[Question]:
    """One question of each kind that the things allow."""
    found = []
    for kind, ask in zip(WHOLE, (ask_shape, ask_color, ask_presence, ask_count), strict=True):
        draft = next((draft for draft in (ask(rng, scene) for _ in range(TRIES)) if draft is not None), None)
        if draft is not None:
            found.append(Question(kind, draft.question, draft.answer))
    return found
