"""What goes wrong in one place stays there: passes, choices of tokens, memory, callers that misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch
from test_engine_steps import QUESTIONS, finish, make_engine, request, tokens

from flashsloth.errors import EngineError, PromptError
from flashsloth.inference.batch import Batch
from flashsloth.inference.engine.model_runner import SingleRunner
from flashsloth.inference.kv_cache import KVCache
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason, Request
from flashsloth.inference.sampling import Sampler, sampled_ids
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.inference.vision import WeightsState

LENGTH = 8


def alone(sloth: FlashSloth, *asked: Any, **params: Any) -> list[int]:
    engine = make_engine(sloth)
    engine.end_ids = []
    request_id = engine.add_request(request(sloth, *asked, max_tokens=LENGTH, **params))
    return tokens(finish(engine)[request_id])


def test_a_state_that_cannot_be_run_again_is_not(sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(sloth)
    engine.end_ids, engine.runner = [], SingleRunner(sloth.model, 0)
    ids = [engine.add_request(request(sloth, question, 1, max_tokens=LENGTH)) for question in QUESTIONS]
    run, passes = engine.runner._run, []

    def failing(sequence: Any, **inputs: Any) -> torch.Tensor:
        passes.append(sequence.request_id)
        if sequence.request_id == ids[1] and passes.count(ids[1]) == 3:
            raise RuntimeError("this pass fails")
        return run(sequence, **inputs)

    monkeypatch.setattr(engine.runner, "_run", failing)
    found = finish(engine)
    assert found[ids[1]][-1].finish_reason == FinishReason.ERROR
    for number in (0, 2):
        assert tokens(found[ids[number]]) == alone(sloth, QUESTIONS[number], 1)


def test_siblings_whose_rows_could_not_be_made_begin_with_their_own(
    sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(sloth)
    engine.end_ids = []
    asked = (QUESTIONS[0], "Is it this?", "Is it that?")  # the first leads, and the others are run in one pass
    ids = [engine.add_request(request(sloth, question, n=2, max_tokens=LENGTH)) for question in asked]
    fork, forks = engine.runner.fork, []

    def failing(sequence: Any, others: Any) -> None:
        forks.append(sequence)
        if len(forks) == 3:
            raise torch.OutOfMemoryError("no room for siblings")
        fork(sequence, others)

    monkeypatch.setattr(engine.runner, "fork", failing)
    found = finish(engine)
    assert len(forks) == 5
    for request_id, question in zip(ids, asked, strict=True):
        assert [output.error for output in found[request_id]] == [None, None]
        assert [tokens([output]) for output in found[request_id]] == [alone(sloth, question)] * 2
    assert engine.runner.sequences == []


def test_a_choice_of_tokens_that_fails_is_its_own(sloth: FlashSloth) -> None:
    engine = make_engine(sloth)
    engine.end_ids = []
    seeds = (1, 5, 2)
    asked = [
        request(sloth, question, max_tokens=LENGTH, seed=seed) for question, seed in zip(QUESTIONS, seeds, strict=True)
    ]
    ids = [engine.add_request(one) for one in asked]

    class Failing(Sampler):
        def __call__(self, logits: torch.Tensor, states: Any) -> Any:
            if any(state.params.seed == 5 and len(state.tokens) == 3 for state in states):
                raise RuntimeError("no memory for these")
            return super().__call__(logits, states)

    engine.sampler = Failing(*sampled_ids(sloth.model))
    found = finish(engine)
    assert [found[one][-1].finish_reason == FinishReason.ERROR for one in ids] == [False, True, False]
    for request_id, question in zip(ids, QUESTIONS, strict=True):
        expected = alone(sloth, question)
        assert tokens(found[request_id]) == (expected[:3] if request_id == ids[1] else expected)


def test_memory_that_ends_while_a_block_grows_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KVCache([((2, 4), (2, 4))] * 2, torch.float32, torch.device("cpu"))
    cache.reserve(2, 64)
    for number, held in enumerate((*cache.keys, *cache.values)):
        held.fill_(number)
    zeros, made = torch.zeros, []

    def failing(*size: Any, **options: Any) -> torch.Tensor:
        made.append(size)
        if len(made) == 2:
            raise torch.OutOfMemoryError("no more")
        return zeros(*size, **options)

    monkeypatch.setattr(torch, "zeros", failing)
    with pytest.raises(torch.OutOfMemoryError):
        cache.reserve(4, 128)
    cache.reserve(3, 64)
    for number, held in enumerate((*cache.keys, *cache.values)):
        assert (held[:2, :, :64] == number).all()
        assert held.shape[0] >= 3


def test_states_for_which_there_is_no_memory_are_run_again(sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(sloth, keep=0)
    plain = request(sloth, QUESTIONS[0], max_tokens=3)
    request_id = engine.add_request(Request(plain.prompt, params=plain.params, keep_states=True))

    def failing(*sequence: Any) -> None:
        raise torch.OutOfMemoryError("no room for a copy")

    monkeypatch.setattr(engine.runner, "states", failing)
    [output] = finish(engine)[request_id]
    assert output.error is None
    assert output.states is None
    assert len(output.tokens) == 3


def test_a_mask_cannot_change_an_answer_nor_wait_for_another(sloth: FlashSloth) -> None:
    free = torch.ones(sloth.model.config.text_config.vocab_size, dtype=torch.bool)

    def clearing(so_far: Any) -> torch.Tensor:
        list(so_far).clear()
        assert isinstance(so_far, tuple)
        return free

    def asking(so_far: Any) -> torch.Tensor:
        sloth.answer(None, "And this?", max_tokens=1)
        return free

    def leaving(so_far: Any) -> torch.Tensor:
        raise SystemExit

    expected = sloth.answer(None, "Why?", max_tokens=4)
    assert sloth.answer(None, "Why?", max_tokens=4, mask=clearing) == expected
    with pytest.raises(EngineError, match="within one of its own steps"):
        sloth.answer(None, "Why?", mask=asking)
    with pytest.raises(PromptError, match="SystemExit"):
        sloth.answer(None, "Why?", mask=leaving)
    assert sloth.answer(None, "Why?", max_tokens=4) == expected


def test_numbers_larger_than_any_machines(sloth: FlashSloth) -> None:
    drawn = {"max_tokens": 4, "temperature": 1.0, "seed": 3}
    assert sloth.answer(None, "Why?", top_k=10**30, **drawn) == sloth.answer(None, "Why?", **drawn)


def test_stop_texts_that_do_not_end_are_refused() -> None:
    with pytest.raises(PromptError, match="more than 16"):
        SamplingParams(stop=iter(lambda: "a", None))
    with pytest.raises(PromptError, match="half a character"):
        SamplingParams(stop="\ud83d")


def test_a_stream_that_is_closed_before_its_first_piece_ends_its_answer(sloth: FlashSloth) -> None:
    stream = sloth.stream(None, QUESTIONS[0], max_tokens=900, logit_bias={sloth.engine.end_ids[0]: -100})
    stream.close()
    stream.close()
    assert list(stream) == []
    assert stream.answer.finish_reason == FinishReason.ABORT
    end = time.monotonic() + 60
    while sloth.engine.has_work and time.monotonic() < end:
        time.sleep(0.01)
    assert not sloth.engine.has_work


def test_another_module_in_ones_place_is_a_change() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2)))
    state = WeightsState(model)
    seen = {state()}
    assert {state()} == seen
    inner: Any = model[1]
    inner[0] = torch.nn.Linear(2, 2)
    seen.add(state())
    with torch.no_grad():
        inner[0].weight.mul_(2)
    seen.add(state())
    model[0].weight = torch.nn.Parameter(torch.ones(2, 2))
    seen.add(state())
    model.to(torch.bfloat16)
    seen.add(state())
    assert len(seen) == 5
    assert state() in seen


def test_an_answer_among_pictures_of_a_step_that_cannot_be_seen(
    sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(sloth)
    ids = [engine.add_request(request(sloth, QUESTIONS[0], seed, max_tokens=LENGTH)) for seed in (20, 21, 22)]
    look = engine._image_encoder._encode_pass
    bad = request(sloth, QUESTIONS[0], 21).pictures
    assert bad is not None
    pixels = bad.made[0]

    def failing(views: torch.Tensor) -> Any:
        if any(torch.equal(one, pixels[0]) for one in views):
            raise torch.OutOfMemoryError("no memory for this picture")
        return look(views)

    monkeypatch.setattr(engine._image_encoder, "_encode_pass", failing)
    found = finish(engine)
    assert [found[one][-1].finish_reason == FinishReason.ERROR for one in ids] == [False, True, False]
    assert tiny.picture(20) != tiny.picture(21)


def test_pairs_that_come_slowly_keep_no_answer_waiting(sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox = sloth.engine_thread._mailbox
    tell, hand_out = Batch._prepared, mailbox.hand_out
    made, answered = threading.Event(), threading.Event()

    def told(batch: Batch, *ready: Any) -> None:
        tell(batch, *ready)
        made.set()

    def handed(output: Any) -> None:
        hand_out(output)
        answered.set()

    monkeypatch.setattr("flashsloth.inference.batch.SLOW_PAIR", 0)
    monkeypatch.setattr(Batch, "_prepared", told)
    monkeypatch.setattr(mailbox, "hand_out", handed)
    read: list[int] = []

    def slowly() -> Iterator[tuple[None, str]]:
        for number in range(24):
            if number in (10, 20):
                assert (made if number == 10 else answered).wait(60)
            read.append(number)
            yield None, "Why?"

    answers = sloth.answer_as_ready(slowly(), max_tokens=1)
    next(answers)
    assert len(read) <= 21
    assert len(list(answers)) == 23


def test_a_pair_that_cannot_even_be_named_fails_in_its_place(sloth: FlashSloth) -> None:
    nested: list[Any] = []
    nested.append(nested)
    pairs: Any = [(None, "Why?"), (nested, "Why?"), 5, (None, "Why?")]
    first, *errors, last = sloth.answer_batch(pairs, on_error="return", max_tokens=3)
    assert first == last == sloth.answer(None, "Why?", max_tokens=3)
    assert [type(error) for error in errors] == [RecursionError, PromptError]
