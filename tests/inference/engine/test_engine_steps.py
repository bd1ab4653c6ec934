"""Requests stepped by hand: the answers of the plain way, and nothing that happens to one reaches another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch

from flashsloth.errors import PromptError
from flashsloth.inference.detokenizer import text_of
from flashsloth.inference.engine.batch_verification import ManualClock
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.engine.model_runner import SingleRunner
from flashsloth.inference.kv_cache import round_columns
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason, Request, RequestOutput
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.inference.vision import ImageEncoder
from flashsloth.model.loading.non_finite import NonFiniteError

QUESTIONS = ("What is this?", "How many red circles are there on the left?", "Why?")


def make_engine(sloth: FlashSloth, clock: Callable[[], float] | None = None, **config: Any) -> Engine:
    cache = PictureCache(config.pop("keep", 1 << 20))
    encoder = ImageEncoder(sloth.model, sloth.processor.image_processor, cache)
    return Engine(
        sloth.model, sloth.processor.tokenizer, encoder, cache, EngineConfig(**config), clock or ManualClock()
    )


def request(
    sloth: FlashSloth, question: str, shown: int | None = None, streams: bool = False, **params: Any
) -> Request:
    pictures = sloth.image_encoder.prepare([] if shown is None else [tiny.picture(shown)])
    prompt = sloth.writer.write([sloth.writer.user_message(question, len(pictures))], None)
    return Request(prompt, pictures if len(pictures) else None, SamplingParams(**params), streams=streams)


def finish(engine: Engine) -> dict[int, list[RequestOutput]]:
    found: dict[int, list[RequestOutput]] = {}
    while engine.has_work:
        for output in engine.step():
            found.setdefault(output.request_id, []).append(output)
    return found


def tokens(outputs: list[RequestOutput]) -> list[int]:
    return [one.token for output in outputs for one in output.tokens]


@pytest.mark.parametrize("keep", [0, 1 << 30])
def test_answers_are_those_of_the_plain_way(sloth: FlashSloth, keep: int) -> None:
    engine = make_engine(sloth, keep=keep, max_rows=4, pictures_per_step=1)
    asked = [(None if number % 4 == 3 else number % 2, QUESTIONS[number % 3]) for number in range(12)]
    ids = [engine.add_request(request(sloth, question, seed, max_tokens=12)) for seed, question in asked]
    found = finish(engine)
    for request_id, (seed, question) in zip(ids, asked, strict=True):
        image = None if seed is None else tiny.picture(seed)
        expected = sloth.answer(image, question, max_new_tokens=12)
        assert text_of(tokens(found[request_id]), sloth.processor.tokenizer) == expected
    assert engine.runner.sequences == []


def test_another_kind_of_state_runs_a_row_at_a_time(sloth: FlashSloth) -> None:
    engine = make_engine(sloth)
    engine.runner = SingleRunner(sloth.model, 0)
    ids = [engine.add_request(request(sloth, question, 1, max_tokens=8)) for question in QUESTIONS]
    found = finish(engine)
    for request_id, question in zip(ids, QUESTIONS, strict=True):
        expected = sloth.answer(tiny.picture(1), question, max_new_tokens=8)
        assert text_of(tokens(found[request_id]), sloth.processor.tokenizer) == expected


def test_streams_bring_a_token_a_step_and_others_all_at_their_end(sloth: FlashSloth) -> None:
    engine = make_engine(sloth)
    engine.end_ids = []
    streamed = engine.add_request(request(sloth, QUESTIONS[0], 0, streams=True, max_tokens=5))
    whole = engine.add_request(request(sloth, QUESTIONS[0], 0, max_tokens=5))
    found = finish(engine)
    assert [len(output.tokens) for output in found[streamed]] == [1] * 5
    assert tokens(found[whole]) == tokens(found[streamed])
    assert [output.finish_reason for output in found[whole]] == [FinishReason.LENGTH]


def test_several_answers_of_one_request_and_the_same_seed_again(sloth: FlashSloth) -> None:
    engine = make_engine(sloth)
    engine.end_ids = []
    drawn = {"max_tokens": 6, "temperature": 1.0, "seed": 7}
    several = engine.add_request(request(sloth, QUESTIONS[1], 0, n=3, **drawn))
    one = engine.add_request(request(sloth, QUESTIONS[1], 0, **drawn))
    found = finish(engine)
    answers = {output.index: tokens([output]) for output in found[several]}
    assert sorted(answers) == [0, 1, 2]
    assert len({tuple(ids) for ids in answers.values()}) > 1
    assert tokens(found[one]) == answers[0]


def test_choices_are_scored_as_without_any_cache(sloth: FlashSloth) -> None:
    engine = make_engine(sloth)
    plain = request(sloth, QUESTIONS[0], 0, logprobs=True)
    choices = ((65, 66, 1), (67, 1))
    request_id = engine.add_request(Request(plain.prompt, plain.pictures, plain.params, choices=choices))
    found = {output.index: output for output in finish(engine)[request_id]}
    features = sloth.image_encoder.encode_prepared([sloth.image_encoder.prepare([tiny.picture(0)])])[0]
    assert features is not None
    for index, choice in enumerate(choices):
        inputs = {name: [*getattr(plain.prompt, name)] for name in ("image_index", "query_turn", "question_turn")}
        given = {name: torch.tensor([marks + [0] * len(choice)]) for name, marks in inputs.items()}
        ids = torch.tensor([[*plain.prompt.input_ids, *choice]])
        with torch.no_grad():
            logits = sloth.model(
                input_ids=ids, **given, mm_encoder_outputs={"image": features.features}, use_cache=False
            ).logits[0]
        rows = logits[len(plain.prompt) - 1 : -1].log_softmax(-1)
        expected = sum(float(row[token]) for row, token in zip(rows, choice, strict=True))
        assert sum(one.logprob or 0 for one in found[index].tokens) == pytest.approx(expected, abs=1e-4)
        assert tokens([found[index]]) == list(choice)


def test_a_choice_beyond_the_context_is_refused(sloth: FlashSloth) -> None:
    engine = make_engine(sloth)
    plain = request(sloth, QUESTIONS[0], 0, logprobs=True)
    engine.context = len(plain.prompt) + 2
    choices = ((65, 66, 1), (67, 1))
    with pytest.raises(PromptError, match="the longest choice 3, and this model's context is"):
        engine.add_request(Request(plain.prompt, plain.pictures, plain.params, choices=choices))
    engine.add_request(Request(plain.prompt, plain.pictures, plain.params, choices=choices[1:]))


def test_each_ends_in_its_own_way(sloth: FlashSloth) -> None:
    clock = ManualClock()
    engine = make_engine(sloth, clock)
    engine.end_ids = []
    aborted = engine.add_request(request(sloth, QUESTIONS[0], 0, max_tokens=50))
    late = engine.add_request(request(sloth, QUESTIONS[1], 1, max_tokens=50, deadline=5.0))
    failing = engine.add_request(request(sloth, QUESTIONS[0], 0, max_tokens=50, mask=lambda given: 1 / 0))
    whole = engine.add_request(request(sloth, QUESTIONS[2], None, max_tokens=10))
    outputs = [output for _ in range(3) for output in engine.step()]
    engine.abort(aborted)
    clock.now = 6.0
    outputs += [output for some in finish(engine).values() for output in some]
    ends = {output.request_id: output for output in outputs}
    assert ends[aborted].finish_reason == FinishReason.ABORT
    assert ends[late].finish_reason == FinishReason.TIMEOUT
    assert ends[failing].finish_reason == FinishReason.ERROR
    assert isinstance(ends[failing].error, ZeroDivisionError)
    assert ends[whole].finish_reason == FinishReason.LENGTH
    assert len(ends[aborted].tokens) == len(ends[late].tokens) == 3
    assert len(outputs) == 4


@pytest.mark.parametrize("place", ["decode", "prefill", "encode"])
def test_a_pass_that_fails_ends_the_one_that_fails_alone(
    place: str, sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(sloth)
    engine.end_ids = []
    bad = request(sloth, QUESTIONS[0], 0, max_tokens=6)
    good = request(sloth, QUESTIONS[1], 1, max_tokens=6)

    def broken(name: str, run: Callable[..., Any], owner: Any, concerns: Callable[[Any], bool]) -> None:
        def failing(sequences: list[Any], *args: Any) -> Any:
            if any(concerns(one) for one in sequences):
                raise RuntimeError("out of memory")
            return run(sequences, *args)

        monkeypatch.setattr(owner, name, failing)

    runner: Any = engine.runner
    if place == "decode":
        broken("decode", runner.decode, runner, lambda one: one.request is bad and one.length > len(bad.prompt) + 2)
    elif place == "prefill":
        broken("_run_prompts", runner._run_prompts, runner, lambda one: one.request is bad)
    else:
        encoder: Any = engine._image_encoder
        broken("encode_prepared", encoder.encode_prepared, encoder, lambda one: one is bad.pictures)
    ids = [engine.add_request(one) for one in (good, bad, good)]
    found = {request_id: outputs[-1] for request_id, outputs in finish(engine).items()}
    assert [found[one].finish_reason for one in ids] == [FinishReason.LENGTH, FinishReason.ERROR, FinishReason.LENGTH]
    assert str(found[ids[1]].error) == "out of memory"
    monkeypatch.undo()
    alone = make_engine(sloth)
    alone.end_ids = []
    again = alone.add_request(request(sloth, QUESTIONS[1], 1, max_tokens=6))
    assert tokens(finish(alone)[again]) == tokens([found[ids[0]]]) == tokens([found[ids[2]]])


def test_logits_that_are_not_finite_are_one_answers_error(sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(sloth)
    engine.end_ids = []
    ids = [engine.add_request(request(sloth, question, max_tokens=4)) for question in QUESTIONS[:2]]
    runner: Any = engine.runner
    decode = runner.decode

    def spoiled(sequences: list[Any]) -> torch.Tensor:
        logits: torch.Tensor = decode(sequences)
        for row, one in enumerate(sequences):
            if one.request_id == ids[0]:
                logits[row] = torch.nan
        return logits

    monkeypatch.setattr(runner, "decode", spoiled)
    found = {request_id: outputs[-1] for request_id, outputs in finish(engine).items()}
    assert isinstance(found[ids[0]].error, NonFiniteError)
    assert found[ids[1]].finish_reason == FinishReason.LENGTH


def test_first_in_first_out_within_the_budget_of_memory(sloth: FlashSloth) -> None:
    bytes_each = make_engine(sloth).runner.position_bytes
    one = request(sloth, QUESTIONS[0], 0, max_tokens=8)
    positions = round_columns(len(one.prompt) + 8)
    engine = make_engine(sloth, cache_bytes=2 * positions * bytes_each)
    engine.end_ids = []
    ids = [engine.add_request(request(sloth, QUESTIONS[0], 0, max_tokens=8)) for _ in range(5)]
    ended: list[int] = []
    while engine.has_work:
        ended += [output.request_id for output in engine.step() if output.finish_reason is not None]
        assert len(engine.scheduler.running) <= 2
    assert ended == ids
    with pytest.raises(PromptError, match="the cache holds"):
        engine.add_request(request(sloth, QUESTIONS[0], 0, max_tokens=500))


def test_the_block_stays_within_its_budget_after_a_long_answer(sloth: FlashSloth) -> None:
    long = request(sloth, "why " * 200, max_tokens=300)
    short = [request(sloth, QUESTIONS[number % 3], number % 2, max_tokens=3 + number) for number in range(9)]
    alone = make_engine(sloth)
    ids = [alone.add_request(one) for one in short]
    found = finish(alone)
    expected = [tokens(found[one]) for one in ids]
    positions = round_columns(len(long.prompt) + 299)
    engine = make_engine(sloth, cache_bytes=positions * alone.runner.position_bytes)
    engine.end_ids = alone.end_ids
    aborted = engine.add_request(long)
    engine.step()
    cache = engine.runner.cache
    assert cache.rows * cache.columns <= positions
    ids = [engine.add_request(one) for one in short]
    engine.step()
    assert len(engine.runner.sequences) == 1  # the long one may come to need it all
    engine.abort(aborted)
    together: dict[int, list[int]] = {}
    most = 0
    while engine.has_work:
        for output in engine.step():
            together.setdefault(output.request_id, []).extend(tokens([output]))
        assert cache.rows * cache.columns <= positions
        most = max(most, len(engine.runner.sequences))
    assert [together[one] for one in ids] == expected
    assert most > 1


def test_stop_strings_end_an_answer(sloth: FlashSloth) -> None:
    engine = make_engine(sloth)
    text = sloth.answer(tiny.picture(0), QUESTIONS[0], max_new_tokens=12)
    stop = next(character for character in text if text.count(character) == 1 and character.isalpha())
    request_id = engine.add_request(request(sloth, QUESTIONS[0], 0, max_tokens=12, stop=stop))
    outputs = finish(engine)[request_id]
    assert outputs[-1].finish_reason == FinishReason.STOP
    assert text_of(tokens(outputs), sloth.processor.tokenizer).startswith(text[: text.index(stop) + 1])
