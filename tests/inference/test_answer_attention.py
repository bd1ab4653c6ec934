"""`attention=True`: every way of asking says where the model looked, and those that do not ask have nothing of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from flashsloth.ablation.variants import QueriesThatDoNotLook
from flashsloth.errors import PromptError
from flashsloth.inference.engine.model_runner import SingleRunner
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason
from flashsloth.inference.visual_attention import Attention
from flashsloth.model.attention_maps import recording_attention

FEW = {"max_tokens": 3}
QUESTION = "What is this?"


def expected(sloth: FlashSloth, *chat: Any) -> np.ndarray:
    """Of the last turn: [N, Q, W, g, g]."""
    with torch.no_grad(), recording_attention(sloth.model) as maps:
        sloth.model(**tiny.encode(sloth.processor, list(chat)))
    found = maps.of()
    assert found is not None
    return found.queries


def check(found: tuple[Attention, ...], queries: np.ndarray, pictures: list[Image.Image]) -> None:
    assert [one.size for one in found] == [picture.size for picture in pictures]
    np.testing.assert_allclose(np.stack([one.queries for one in found]), queries, atol=1e-5)


def test_one_answer_and_several_and_choices(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    queries = expected(sloth, tiny.user(QUESTION, *pictures[:2]))
    plain = sloth.answer(pictures[:2], QUESTION, **FEW)
    answer = sloth.answer(pictures[:2], QUESTION, attention=True, **FEW)
    assert answer.text == plain
    check(answer.attention, queries, pictures[:2])
    for one in sloth.answer(pictures[:2], QUESTION, attention=True, n=2, temperature=1.0, seed=1, **FEW):
        check(one.attention, queries, pictures[:2])
    chosen = sloth.answer(pictures[:2], QUESTION, attention=True, choices=["a dog", "a cat"])
    check(chosen.attention, queries, pictures[:2])
    assert sloth.answer(pictures[0], QUESTION, details=True, **FEW).attention == ()


def test_a_batch_of_any_mixture(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    pairs = [(pictures[0], QUESTION), (None, QUESTION), (pictures[1:], "Which?"), (pictures[0], "Is it?")]
    answers = sloth.answer_batch(pairs, attention=True, **FEW)
    assert answers[1].attention == ()
    for place, shown in ((0, pictures[:1]), (2, pictures[1:]), (3, pictures[:1])):
        check(answers[place].attention, expected(sloth, tiny.user(pairs[place][1], *shown)), shown)


def test_a_stream_and_a_conversation(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    stream = sloth.stream(pictures[0], QUESTION, attention=True, **FEW)
    text = "".join(stream)
    assert stream.answer.text == text
    check(stream.answer.attention, expected(sloth, tiny.user(QUESTION, pictures[0])), pictures[:1])
    talk = sloth.chat(pictures[0], attention=True, **FEW)
    said = talk.ask(QUESTION)
    check(talk.attention, expected(sloth, tiny.user(QUESTION, pictures[0])), pictures[:1])
    talk.ask("And this?", pictures[1])
    chat = [tiny.user(QUESTION, pictures[0]), tiny.assistant(said), tiny.user("And this?", pictures[1])]
    check(talk.attention, expected(sloth, *chat), pictures[:2])


def test_a_sequence_at_a_time(sloth: FlashSloth, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sloth.engine, "runner", SingleRunner(sloth.model, 0))
    answers = sloth.answer(pictures[0], QUESTION, attention=True, n=2, temperature=1.0, **FEW)
    for one in answers:
        check(one.attention, expected(sloth, tiny.user(QUESTION, pictures[0])), pictures[:1])


def test_nothing_is_recorded_for_who_does_not_ask(
    sloth: FlashSloth, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("recorded")

    monkeypatch.setattr("flashsloth.model.attention_maps.AttentionMaps.add", refuse)
    assert sloth.answer(pictures[0], QUESTION, details=True, **FEW).attention == ()
    with pytest.raises(AssertionError, match="recorded"):
        sloth.answer(pictures[0], QUESTION, attention=True, **FEW)


def test_an_answer_that_ended_before_it_looked_has_none(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    late = sloth.answer(pictures[0], QUESTION, attention=True, deadline=1e-9, **FEW)
    assert (late.finish_reason, late.attention) == (FinishReason.TIMEOUT, ())
    stream = sloth.stream(pictures[0], QUESTION, attention=True, **FEW)
    stream.close()
    assert stream.answer.attention == ()


def test_a_model_that_cannot_show_it_says_so(
    sloth: FlashSloth, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sloth.model.model._modules, "embedded_query", QueriesThatDoNotLook())
    with pytest.raises(ValueError, match="QueriesThatDoNotLook, which has no attention to show"):
        sloth.answer(pictures[0], QUESTION, attention=True, **FEW)
    assert isinstance(sloth.answer(pictures[0], QUESTION, **FEW), str)
    with pytest.raises(PromptError, match="attention is 1; expected True or False"):
        sloth.answer(pictures[0], QUESTION, attention=1)
