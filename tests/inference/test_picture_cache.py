"""A picture asked about again is not looked at again; and never is one picture's work taken for another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import flashsloth
from flashsloth.errors import LoadError, PromptError
from flashsloth.inference.picture_cache import PictureCache, WeightsState
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.media import MediaLimits
from flashsloth.media.views import digest

QUESTIONS = ["What is this?", "Where is the red dog?", "Is it?"]
LENGTH = 6


@pytest.fixture
def fresh(checkpoint: Path) -> FlashSloth:
    """A model of its own: its weights and settings may be changed."""
    return flashsloth.load(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def forgetful(checkpoint: Path) -> FlashSloth:
    """The same without a cache: what is right."""
    return flashsloth.load(checkpoint, device="cpu", picture_cache=0)


class Work:
    """What the model does: passes of its encoder, and columns of its language model's passes."""

    def __init__(self, sloth: FlashSloth) -> None:
        self.looks, self.columns = 0, []
        sloth.model.model.vision_tower.register_forward_hook(self._look)
        sloth.model.model.language_model.register_forward_pre_hook(self._read, with_kwargs=True)

    def _look(self, *_: Any) -> None:
        self.looks += 1

    def _read(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.columns.append(tuple(kwargs["inputs_embeds"].shape[:2]))


def test_the_second_question_runs_only_itself(fresh: FlashSloth, forgetful: FlashSloth, pictures: list) -> None:
    expected = [forgetful.answer(pictures[0], question, max_tokens=LENGTH) for question in QUESTIONS]
    work = Work(fresh)
    assert fresh.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH) == expected[0]
    whole = work.columns[0][1]
    del work.columns[:]
    assert fresh.answer(pictures[0].copy(), QUESTIONS[0], max_tokens=LENGTH) == expected[0]
    assert work.looks == 1
    prompt = fresh.request(pictures[0], QUESTIONS[0]).prompt
    assert work.columns[0] == (1, whole - prompt.last_question_start())
    for question, answer in zip(QUESTIONS[1:], expected[1:], strict=True):
        assert fresh.answer(pictures[0], question, max_tokens=LENGTH) == answer
    assert fresh.answer_many(pictures[0], QUESTIONS, max_tokens=LENGTH) == expected
    assert "".join(fresh.stream(pictures[0], QUESTIONS[1], max_tokens=LENGTH)) == expected[1]
    assert work.looks == 1


def test_batches_take_what_is_known_and_run_the_rest(fresh: FlashSloth, forgetful: FlashSloth, pictures: list) -> None:
    pairs = [(pictures[k], question) for question in QUESTIONS for k in (0, 1, 2)]
    pairs += [(None, QUESTIONS[0]), (pictures[:2], QUESTIONS[1]), (pictures[1::-1], QUESTIONS[1])]
    expected = [forgetful.answer(picture, question, max_tokens=LENGTH) for picture, question in pairs]
    fresh.answer(pictures[1], QUESTIONS[0], max_tokens=1)
    fresh.answer(pictures[:2], QUESTIONS[0], max_tokens=1)
    assert fresh.answer_batch(pairs, max_tokens=LENGTH) == expected
    assert fresh.answer_batch(pairs, max_tokens=LENGTH) == expected


def test_a_batch_keeps_beginnings_that_a_second_question_shares(fresh: FlashSloth, pictures: list) -> None:
    fresh.answer_batch([(picture, QUESTIONS[0]) for picture in pictures[:2]], max_tokens=2)
    assert len(fresh.pictures) == 2  # features
    fresh.answer_batch([(pictures[0], question) for question in QUESTIONS], max_tokens=2)
    assert len(fresh.pictures) == 3
    fresh.answer(pictures[1], QUESTIONS[0], max_tokens=2)
    assert len(fresh.pictures) == 4


def test_a_chat_begins_with_what_is_known(fresh: FlashSloth, forgetful: FlashSloth, pictures: list) -> None:
    fresh.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH)
    work = Work(fresh)
    ours, theirs = (sloth.chat(pictures[0], max_tokens=LENGTH) for sloth in (fresh, forgetful))
    for question in QUESTIONS:
        assert ours.ask(question) == theirs.ask(question)
    assert work.looks == 0
    again = fresh.chat(pictures[0], max_tokens=LENGTH)
    assert again.ask(QUESTIONS[0]) == forgetful.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH)


def almost_the_same(picture: Image.Image) -> list[Image.Image]:
    """Pictures that are easily confused with it."""
    one_pixel = picture.copy()
    red, green, blue = one_pixel.getpixel((0, 0))
    one_pixel.putpixel((0, 0), (red ^ 1, green, blue))
    turned = Image.frombytes("RGB", (picture.height, picture.width), picture.tobytes())  # the same bytes, another shape
    return [one_pixel, turned, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def test_pictures_that_are_nearly_the_same_are_not(fresh: FlashSloth, forgetful: FlashSloth, pictures: list) -> None:
    work = Work(fresh)
    others = almost_the_same(pictures[0])
    for number, picture in enumerate([pictures[0], *others], start=1):
        answer = fresh.answer(picture, QUESTIONS[0], max_tokens=LENGTH)
        assert answer == forgetful.answer(picture, QUESTIONS[0], max_tokens=LENGTH)
        assert work.looks == number
    assert len({digest(picture) for picture in [pictures[0], *others]}) == 4


def test_an_object_that_changes_is_another_picture(fresh: FlashSloth, forgetful: FlashSloth, tmp_path: Path) -> None:
    canvas, path = tiny.picture(5), tmp_path / "picture.png"
    for seed in (5, 6):
        canvas.paste(tiny.picture(seed))
        canvas.save(path)
        expected = forgetful.answer(tiny.picture(seed), QUESTIONS[0], max_tokens=LENGTH)
        assert fresh.answer(canvas, QUESTIONS[0], max_tokens=LENGTH) == expected
        assert fresh.answer(path, QUESTIONS[0], max_tokens=LENGTH) == expected


def test_other_system_texts_orders_and_preparations_are_not_mixed_up(
    fresh: FlashSloth, forgetful: FlashSloth, pictures: list
) -> None:
    for pair in (pictures[:2], pictures[1::-1], [pictures[0], pictures[0]]):
        for system in (None, "", "Be brief."):
            options = {"max_tokens": LENGTH, "system": system}
            assert fresh.answer(pair, QUESTIONS[0], **options) == forgetful.answer(pair, QUESTIONS[0], **options)
    work = Work(fresh)
    fresh.answer(pictures[0], QUESTIONS[0], max_tokens=1)
    assert work.looks == 0
    fresh.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    fresh.answer(pictures[0], QUESTIONS[0], max_tokens=1)
    assert work.looks == 1


def test_changed_weights_are_another_model(fresh: FlashSloth, pictures: list) -> None:
    state = WeightsState(fresh.model)
    before = state()
    fresh.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH)
    work = Work(fresh)
    with torch.no_grad():
        next(fresh.model.model.spatial_attention_pooling.parameters()).mul_(-3)
    assert state() != before
    changed = FlashSloth(fresh.model, fresh.processor, pictures=PictureCache(0))
    expected = changed.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH)
    looked = work.looks
    assert fresh.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH) == expected
    assert work.looks == looked + 1


def test_a_conversation_ends_with_the_weights_that_it_began_with(fresh: FlashSloth, pictures: list) -> None:
    talk = fresh.chat(pictures[0], max_tokens=LENGTH)
    talk.ask(QUESTIONS[0])
    with torch.no_grad():
        next(fresh.model.model.spatial_attention_pooling.parameters()).mul_(-3)
    with pytest.raises(PromptError, match="weights have changed"):
        talk.ask(QUESTIONS[1])


def test_it_is_bounded_and_gives_up_what_was_used_longest_ago() -> None:
    cache = PictureCache(100)
    for name in "abc":
        cache.put(name, name.upper(), 40)
    assert cache.get("a") is None
    assert cache.get("b") == "B"
    cache.put("d", "D", 40)  # c was used longest ago
    assert [cache.get(name) for name in "bcd"] == ["B", None, "D"]
    cache.put("b", "bigger", 60)
    assert (cache.bytes_held, len(cache)) == (100, 2)
    cache.put("huge", "never kept", 101)
    assert cache.get("huge") is None
    assert cache.bytes_held == 100
    cache.clear()
    assert (cache.bytes_held, len(cache)) == (0, 0)


def test_a_model_keeps_within_its_bytes(fresh: FlashSloth, pictures: list) -> None:
    fresh.answer(pictures[0], QUESTIONS[0], max_tokens=2)
    one = fresh.pictures.bytes_held
    assert one > 0
    bounded = FlashSloth(fresh.model, fresh.processor, pictures=PictureCache(2 * one))
    for seed in range(6):
        bounded.answer(tiny.picture(seed), QUESTIONS[0], max_tokens=2)
        assert bounded.pictures.bytes_held <= 2 * one


@pytest.mark.parametrize("limit", [-1, 2.5, True, "1GB"])
def test_a_limit_that_is_none_is_refused(checkpoint: Path, limit: Any) -> None:
    with pytest.raises(LoadError, match="picture_cache is"):
        flashsloth.load(checkpoint, device="cpu", picture_cache=limit)


def test_a_limit_may_be_numpys() -> None:
    assert PictureCache(np.int64(7)).limit == 7
    assert MediaLimits(max_pixels=np.int64(7), max_aspect=np.float32(2)).max_pixels == 7
