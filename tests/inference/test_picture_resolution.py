"""An HD model asked with the whole view, with all views, and with as much as it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
from PIL import Image
from talkative import save_talkative

import flashsloth
from flashsloth.errors import PromptError
from flashsloth.inference.answer import Answer
from flashsloth.inference.options import Options
from flashsloth.inference.picture_resolution import hd_options
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason
from flashsloth.inference.sampling_params import SamplingParams

QUESTIONS = ["What is this?", "Where is the red dog?", "Is it?", "Why?"]
LENGTH = 6


@pytest.fixture(scope="module")
def hd(tmp_path_factory: pytest.TempPathFactory) -> FlashSloth:
    return flashsloth.load(save_talkative(tmp_path_factory.mktemp("hd"), image_grid=2), device="cpu")


def asked(sloth: FlashSloth, picture: Any, question: str, **options: Any) -> Answer:
    options = {"max_tokens": LENGTH, "details": True, "seed": 0, **options}
    answer: Answer = sloth.answer(picture, question, **options)
    return answer


def said(answer: Answer) -> tuple[str | None, tuple[int, ...]]:
    return answer.resolution, answer.tokens


def between(hd: FlashSloth, pictures: list[Image.Image]) -> tuple[float, list[Answer]]:
    """A threshold that some of the whole views' answers pass and others do not, and those answers."""
    found = [
        asked(hd, picture, question, resolution="standard", logprobs=True)
        for picture, question in zip(pictures, QUESTIONS, strict=False)
    ]
    sure = sorted(one.confidence for one in found if one.confidence is not None)
    return (sure[0] + sure[-1]) / 2, found


def test_each_resolution_is_its_own_answer(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    whole, every = (asked(hd, pictures[0], QUESTIONS[0], resolution=one) for one in ("standard", "hd"))
    assert (whole.resolution, every.resolution) == ("standard", "hd")
    assert whole.text != every.text
    assert said(asked(hd, pictures[0], QUESTIONS[0])) == said(every)
    inputs = tiny.encode(hd.processor, [tiny.user(QUESTIONS[0], pictures[0])], resolution="standard")
    ids = hd.model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=hd.engine.end_ids)
    assert list(whole.tokens) == ids[0, inputs["input_ids"].shape[1] :].tolist()


def test_nothing_kept_of_one_is_taken_for_the_other(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    orders = [("standard", "hd", "standard"), ("hd", "standard", "hd")]
    found = []
    for order in orders:
        hd.pictures.clear()
        found.append([asked(hd, pictures[1], QUESTIONS[1], resolution=one).text for one in order])
    assert found[0] == [found[1][1], found[1][0], found[1][1]]


def test_several_at_unlike_resolutions_run_together(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    """In one pass of the engine, as two callers at a time would have it."""
    resolutions = ["standard", "hd", "standard"]
    hd.pictures.clear()
    requests = [
        hd.request(picture, QUESTIONS[0], max_tokens=LENGTH, resolution=one)  # type: ignore[arg-type]
        for picture, one in zip(pictures, resolutions, strict=True)
    ]
    replies = hd.engine_thread.submit_all(requests)
    tokens = [[token.token for output in reply for token in output.tokens] for reply in replies]
    hd.pictures.clear()
    alone = [
        asked(hd, picture, QUESTIONS[0], resolution=one) for picture, one in zip(pictures, resolutions, strict=True)
    ]
    assert tokens == [list(one.tokens) for one in alone]


def test_auto_looks_again_where_it_is_not_sure(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    threshold, whole = between(hd, pictures)
    for picture, question, first in zip(pictures, QUESTIONS, whole, strict=False):
        found = asked(hd, picture, question, resolution="auto", resolution_threshold=threshold)
        assert first.confidence is not None
        if first.confidence >= threshold:
            assert said(found) == said(first)
        else:
            assert said(found) == said(asked(hd, picture, question, resolution="hd"))
            assert found.logprobs
    assert {first.confidence >= threshold for first in whole if first.confidence is not None} == {True, False}


def test_the_ends_of_the_threshold(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    never, always = (
        asked(hd, pictures[0], QUESTIONS[0], resolution="auto", resolution_threshold=one) for one in (0, 1)
    )
    assert (never.resolution, always.resolution) == ("standard", "hd")
    text = hd.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH, resolution="auto", resolution_threshold=1.0)
    assert text == always.text


def test_in_a_batch_each_pair_decides_for_itself(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    threshold, _ = between(hd, pictures)
    options: Any = {"max_tokens": LENGTH, "details": True, "resolution": "auto", "resolution_threshold": threshold}
    pairs = [(picture, question) for question in QUESTIONS for picture in (*pictures, None)]
    alone = [hd.answer(picture, question, **options) for picture, question in pairs]
    assert {one.resolution for one in alone} == {"standard", "hd", None}
    together = hd.answer_batch([*pairs, (pictures[0], "")], on_error="return", **options)
    assert [one.text for one in together[:-1]] == [one.text for one in alone]
    assert [one.resolution for one in together[:-1]] == [one.resolution for one in alone]
    assert isinstance(together[-1], PromptError)


def test_a_stream_decides_before_its_first_piece(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    for threshold, resolution in ((0.0, "standard"), (1.0, "hd")):
        options: Any = {"max_tokens": LENGTH, "resolution": "auto", "resolution_threshold": threshold}
        pieces = hd.stream(pictures[0], QUESTIONS[0], **options)
        found = list(pieces)
        whole = asked(hd, pictures[0], QUESTIONS[0], **options)
        assert ("".join(found), pieces.answer.resolution) == (whole.text, resolution)
        assert len(found) == 1 or resolution == "hd"


def test_choices_decide_by_their_gap(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    options: Any = {"choices": ["a red dog", "a blue chair"], "resolution": "auto"}
    first = asked(hd, pictures[0], QUESTIONS[0], **{**options, "resolution": "standard"})
    best, other = sorted(first.choices.values(), reverse=True)
    assert first.confidence == pytest.approx(best - other)
    found = asked(hd, pictures[0], QUESTIONS[0], **options, resolution_threshold=min(1.0, best - other + 1e-6))
    assert found.resolution == "hd"
    kept = asked(hd, pictures[0], QUESTIONS[0], **options, resolution_threshold=best - other - 1e-6)
    assert said(kept) == said(first)


def test_a_conversation_stays_at_one_resolution(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    with pytest.raises(PromptError, match='takes resolution "standard" or "hd", not "auto"'):
        hd.chat(pictures[0], resolution="auto")
    chat = hd.chat(pictures[0], resolution="standard", max_tokens=LENGTH)
    assert chat.ask(QUESTIONS[0]) == asked(hd, pictures[0], QUESTIONS[0], resolution="standard").text
    chat.ask(QUESTIONS[1], pictures[1])


def test_attention_is_of_what_was_shown(hd: FlashSloth, pictures: list[Image.Image]) -> None:
    for resolution, views in (("standard", 1), ("hd", 5)):
        [found] = asked(hd, pictures[0], QUESTIONS[0], resolution=resolution, attention=True).attention
        assert len(found.boxes) == len(found.sap) == found.queries.shape[1] == views


def test_a_model_of_one_view(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    assert asked(sloth, pictures[0], QUESTIONS[0], resolution="standard").resolution == "standard"
    assert asked(sloth, pictures[0], QUESTIONS[0]).resolution == "standard"
    assert asked(sloth, None, QUESTIONS[0]).resolution is None
    for resolution in ("hd", "auto"):
        with pytest.raises(PromptError, match="this model takes one view of a picture: leave it out, or load an HD"):
            sloth.answer(pictures[0], QUESTIONS[0], resolution=resolution)  # type: ignore[arg-type]


MISTAKES = [
    ({"resolution": "full"}, "resolution is 'full'; expected one of standard, hd, auto"),
    ({"resolution_threshold": 2}, "resolution_threshold is 2; expected a number from 0 to 1"),
    ({"resolution_threshold": "0.5"}, "expected a number from 0 to 1"),
    ({"resolution": "auto", "n": 2, "temperature": 1.0}, "n is 2 beside resolution 'auto'"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_what_cannot_be_is_refused(hd: FlashSloth, options: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        hd.answer(None, QUESTIONS[0], **options)


def test_the_hd_options_has_the_time_that_is_left() -> None:
    options = Options(SamplingParams(deadline=3.0), resolution="auto", resolution_threshold=0.9)
    unsure = Answer("a", FinishReason.STOP, (1,), (-1.0,), resolution="standard")
    again = hd_options(options, unsure, seconds=1.0)
    assert again is not None
    assert (again.resolution, again.params.deadline, again.params.logprobs) == ("hd", 2.0, True)
    assert hd_options(options, unsure, seconds=3.0) is None
    for ended in (FinishReason.ABORT, FinishReason.TIMEOUT):
        assert hd_options(options, replace(unsure, finish_reason=ended), seconds=1.0) is None
    assert hd_options(options, replace(unsure, resolution=None), seconds=1.0) is None
