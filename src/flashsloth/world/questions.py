"""The questions of a picture: six to eight, of all the kinds that it allows, in any order.

In: a random stream and a `Scene`. Out: a list of `Question`, each with one true, short answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from flashsloth.world import questions_about_things, questions_about_writing, unknown
from flashsloth.world.references import Draft
from flashsloth.world.scene import Scene
from flashsloth.world.vocabulary import KINDS, NO, OPTION_LETTERS, SHAPES, article, plural
from flashsloth.world.wordings import say

FEWEST, MOST = 6, 8
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
        asks["shape"] += [questions_about_writing.ask_chart_shape]
        asks["chart"] += [questions_about_writing.ask_chart]
        asks["relation"] += [questions_about_writing.ask_chart_relation]
        asks["count"] += [questions_about_writing.ask_chart_count]
        asks["color"] += [questions_about_writing.ask_chart_color]
        asks["presence"] += [questions_about_writing.ask_chart_presence]
        asks["reading"] += [questions_about_writing.ask_chart_reading]
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
    kinds = [*asks, "choice", *_main_kinds(scene)]
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
        draft = unknown.ask_unknown(rng, scene) if rng.random() < share else None
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
        draft = _nothing_there(rng) if rng.random() < NOTHING_THERE_SHARE else unknown.ask_unknown(rng, scene)
        if draft is not None:
            found.setdefault(draft.question, Question(draft.kind, draft.question, draft.answer))
    return list(found.values())


def _nothing_there(rng: Random) -> Draft:
    shape = rng.choice(SHAPES)
    if rng.random() < 0.5:
        return Draft("presence", say(rng, "presence", a=article(shape)), NO)
    return Draft("count", say(rng, "count", noun=plural(shape)), "0")


def _main_kinds(scene: Scene) -> list[str]:
    """The kinds that get a second share: what a picture of this sort is mostly asked."""
    if scene.chart is not None:
        return ["chart", "chart"]
    return ["reading"] if scene.writings else []


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
