"""The small model that ships: its size, that it works offline, and that it is a real FlashSloth."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
import yaml

import flashsloth
from flashsloth.evaluation.world_qa import evaluate_world
from flashsloth.model.loading.folders import shipped_folder
from flashsloth.world import World

EXAMPLES = Path(__file__).parents[1] / "examples"
MOST_BYTES = 16 * 10**6
WORLD_PICTURES = 40
LOOKED_AT, FAR_ABOVE_ROUNDING = 120, 0.1
CHANCE = 0.45
"""Always giving each kind's commonest answer gets less than this; an untrained model gets almost nothing."""


@pytest.fixture(scope="module")
def nano() -> flashsloth.FlashSloth:
    return flashsloth.load()


def test_the_package_holds_it_whole_and_small() -> None:
    folder = shipped_folder()
    assert (folder / "model.safetensors").stat().st_size <= MOST_BYTES
    assert "cannot" in (folder / "README.md").read_text(encoding="utf-8")


def test_it_has_every_part_of_a_flashsloth(nano: flashsloth.FlashSloth) -> None:
    config = nano.model.config
    assert config.num_windows * config.pool_size**2 == config.num_patches
    assert nano.model.model.embedded_query.up.weight.abs().sum() > 0, "EmbQ was never trained"
    assert nano.model.model.query_tokens.weight.abs().sum() > 0


def test_it_answers_far_better_than_chance_on_pictures_it_has_not_seen(nano: flashsloth.FlashSloth) -> None:
    report = evaluate_world(nano, count=WORLD_PICTURES, seed=1234)
    assert report.total.share > CHANCE


def test_the_demo_pictures_get_answers(nano: flashsloth.FlashSloth) -> None:
    questions = yaml.safe_load((EXAMPLES / "questions.yaml").read_text(encoding="utf-8"))
    for name, asked in questions.items():
        answers = nano.answer_many(EXAMPLES / name, [item["question"] for item in asked])
        assert all(answers)
        assert answers == nano.answer_many(EXAMPLES / name, [item["question"] for item in asked])


def test_looking_back_matters(nano: flashsloth.FlashSloth) -> None:
    """With its way back closed, EmbQ brings nothing, and right answers are less likely: it is in use, not decoration.

    How much less likely, and not how many fewer answers are right: the model is small, and a count may tie. Of so many
    pictures that it shows whichever fonts are installed: one picture's share varies four times as much as it is large.
    """
    blind = flashsloth.load(optimize=False)
    for parameter in blind.model.model.embedded_query.up.parameters():
        parameter.requires_grad_(False).zero_()
    samples = map(World(seed=1234, split="test", level=3).sample, range(LOOKED_AT))
    lost = {nano: 0.0, blind: 0.0}
    for sample in samples:
        asked = [
            [tiny.user(question.question, sample.image), tiny.assistant(question.answer)]
            for question in sample.questions
        ]
        inputs = tiny.encode(nano.processor, asked, return_labels=True, padding=True)
        for sloth in lost:
            with torch.no_grad():
                lost[sloth] += float(sloth.model(**inputs).loss)
    assert lost[blind] > lost[nano] + FAR_ABOVE_ROUNDING


def test_the_fast_paths_answer_as_the_plain_ones(nano: flashsloth.FlashSloth) -> None:
    plain = flashsloth.load(optimize=False)
    for name, asked in yaml.safe_load((EXAMPLES / "questions.yaml").read_text(encoding="utf-8")).items():
        questions = [item["question"] for item in asked]
        assert nano.answer_many(EXAMPLES / name, questions) == plain.answer_many(EXAMPLES / name, questions)
