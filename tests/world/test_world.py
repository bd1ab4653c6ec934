"""The world as its users see it: the same sample for the same numbers, sizes within limits, balanced questions."""

import hashlib
import subprocess
import sys
from collections import Counter

import pytest

from flashsloth.world import KINDS, World, WorldError, closed_vocabulary
from flashsloth.world.compose import LEVELS, LONGEST_SIDE, SHORTEST_SIDE
from flashsloth.world.patch_labels import all_writings
from flashsloth.world.vocabulary import COMMON, OPTION_LETTERS, words_of

FINGERPRINT = """
import hashlib, sys
from flashsloth.world import World
sample = World(seed=3, split="test", level=3).sample(int(sys.argv[1]))
print(hashlib.sha256(sample.image.tobytes() + sample.caption.encode() + repr(sample.questions).encode()).hexdigest())
"""


def fingerprint(sample) -> str:
    content = sample.image.tobytes() + sample.caption.encode() + repr(sample.questions).encode()
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def many():
    world = World(seed=11, level=3)
    return [world.sample(index) for index in range(1200)]


def test_order_and_access_do_not_matter():
    world = World(seed=3, split="test", level=3)
    forwards = [fingerprint(world.sample(index)) for index in range(12)]
    backwards = [fingerprint(World(seed=3, split="test", level=3).sample(index)) for index in reversed(range(12))]
    assert forwards == backwards[::-1]
    sample = world.sample(5)
    assert sample.questions == World(seed=3, split="test", level=3).sample(5).questions  # asked before the picture
    assert len(set(forwards)) == 12


@pytest.mark.parametrize("index", [0, 7])
def test_another_process_draws_the_same(index):
    output = subprocess.run(
        [sys.executable, "-c", FINGERPRINT, str(index)], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert output == fingerprint(World(seed=3, split="test", level=3).sample(index))


def test_importing_the_world_is_light():
    code = (
        "import sys, flashsloth.world; print([m for m in ('torch', 'matplotlib', 'transformers') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize("level", LEVELS)
def test_splits_and_seeds_share_no_picture(level):
    worlds = [World(split="train", level=level), World(split="test", level=level), World(seed=1, level=level)]
    prints = [{fingerprint(world.sample(index)) for index in range(60)} for world in worlds]
    assert not prints[0] & prints[1]
    assert not prints[0] & prints[2]


@pytest.mark.parametrize("level", LEVELS)
def test_sizes_and_numbers_of_questions(level):
    for index in range(150):
        sample = World(level=level).sample(index)
        width, height = sample.image.size
        assert sample.image.mode == "RGB"
        assert min(width, height) >= SHORTEST_SIDE
        assert max(width, height) <= LONGEST_SIDE
        assert max(width, height) <= 2 * min(width, height)
        assert 6 <= len(sample.questions) <= 8
        assert len({question.question for question in sample.questions}) == len(sample.questions)
        assert {question.kind for question in sample.questions} <= set(KINDS)
        assert "\n" not in sample.caption


def test_pictures_of_many_shapes_find_their_questions():
    """Eight things of eight shapes leave few wrong shapes to offer; that must be enough."""
    world = World(level=3)
    crowded = 0
    for index in range(4000):
        sample = world.sample(index)
        if len({thing.shape for thing in sample.scene.things}) >= 6:
            crowded += 1
            assert len(sample.questions) >= 6
    assert crowded > 20


def test_levels_hold_what_they_promise():
    limits = {0: 1, 1: 2, 2: 4, 3: 8}
    for level, most in limits.items():
        scenes = [World(level=level).sample(index).scene for index in range(200)]
        assert max(len(scene.things) for scene in scenes) == most
        assert any(scene.chart for scene in scenes) == (level == 3)
        assert all(scene.things or scene.writings or scene.chart for scene in scenes)


def test_every_kind_is_asked(many):
    kinds = Counter(question.kind for sample in many for question in sample.questions)
    assert set(kinds) == set(KINDS) - {"unknown"}  # which a world has only where it is asked for
    assert min(kinds.values()) > 0.03 * sum(kinds.values())


def test_guessing_does_not_pay(many):
    answers = {kind: Counter() for kind in KINDS if kind != "unknown"}
    for sample in many:
        for question in sample.questions:
            answers[question.kind][question.answer] += 1
    share = {kind: max(counted.values()) / sum(counted.values()) for kind, counted in answers.items()}
    assert share["presence"] < 0.54
    assert share["choice"] < 0.38
    assert share["count"] < 0.3
    assert share["color"] < 0.15
    assert share["shape"] < 0.2
    assert share["chart"] < 0.17
    assert share["reading"] < 0.1
    yes, no = answers["relation"]["yes"], answers["relation"]["no"]
    assert 0.44 < yes / (yes + no) < 0.56
    assert set(map(str, range(9))) <= set(answers["count"])


def test_letters_of_choices_are_even(many):
    for options in (2, 3, 4):
        right = Counter()
        for sample in many:
            for question in sample.questions:
                if question.kind == "choice" and count_options(question.question) == options:
                    right[question.answer] += 1
        total = sum(right.values())
        for letter in OPTION_LETTERS[:options]:
            assert abs(right[letter] / total - 1 / options) < 4 * (1 / options / total) ** 0.5


def count_options(question: str) -> int:
    return sum(any(mark in question for mark in (f"{x}. ", f"({x}) ", f"{x}) ", f"{x}: ")) for x in OPTION_LETTERS)


@pytest.mark.parametrize("level", LEVELS)
def test_the_closed_vocabulary_covers_all_but_what_is_drawn(level):
    closed = set(closed_vocabulary())
    for index in range(300):
        sample = World(seed=5, level=level).sample(index)
        scene = sample.scene
        drawn = [writing.text for writing in all_writings(scene)]
        drawn += [thing.writing.text for thing in scene.things if thing.writing]
        allowed = closed | {word for text in drawn for word in words_of(text)} | {text[0] for text in drawn}
        allowed |= {text[-1] for text in drawn}
        for text in [sample.caption, *(part for q in sample.questions for part in (q.question, q.answer))]:
            outside = set(words_of(without_quotes(text))) - allowed
            # A word that might have been drawn may be offered, or a bar asked for that is not there.
            outside = {word for word in outside if not (scene.chart and len(word) == 1)}
            if scene.writings or any(thing.writing for thing in scene.things):
                outside = {word for word in outside if "A" not in text or not is_offered(text, word)}
            assert not outside, (text, outside)


def is_offered(text: str, word: str) -> bool:
    return any(f"{letter}{mark} {word}" in text for letter in OPTION_LETTERS for mark in (".", ")", ":"))


def without_quotes(text: str) -> str:
    return " ".join(text.split('"')[::2])


def test_closed_vocabulary_is_words():
    words = closed_vocabulary()
    assert words == sorted(set(words))
    assert all(word.isalpha() and word.isascii() for word in words)
    assert {"red", "circle", "crosses", "What", "what", "colour", "yes", "no", "chart", "A", "D"} <= set(words)
    assert len(set(words) & set(COMMON)) < 60


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"split": "valid"}, "train, test"), ({"level": 4}, "0, 1, 2, 3")],
)
def test_wrong_worlds_are_refused(arguments, complaint):
    with pytest.raises(WorldError, match=complaint):
        World(**arguments)


def test_wrong_requests_are_refused():
    with pytest.raises(WorldError, match="numbered from 0"):
        World().sample(-1)
    with pytest.raises(WorldError, match="at least 1"):
        World().sample(0).patch_labels(0)
