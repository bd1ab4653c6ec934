"""Replayed passes give what plain ones give, record nothing while answers are made, and say when they cannot record."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from graph_engines import CLOSE, DEVICE, LoadCalm, graph_engine, plain_engine
from test_engine_steps import QUESTIONS, finish, request, tokens
from tiny import TinyModelMaker
from torch.nn.functional import kl_div

from flashsloth.errors import EngineError
from flashsloth.inference.engine import graph_prompts, graph_runner
from flashsloth.inference.engine.batch_verification import RecordingSampler
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.engine.graph_runner import GraphRunner
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason, Request
from flashsloth.inference.sampling import Sampler
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.model.loading.non_finite import NonFiniteError

ROWS = 4
MOST_DIVERGENCE = 1e-2
"""Kullback-Leibler, in nats, of bfloat16's distribution from float32's."""
LONGEST = 96
"""Columns of the longest request below."""


@pytest.fixture(autouse=True)
def narrow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths so small that a short answer comes to several."""
    for module in (graph_runner, graph_prompts):
        monkeypatch.setattr(module, "WIDTH_STEP", 32)


def requests(sloth: FlashSloth) -> list[Request]:
    """Questions with no picture, with one, with two and in a second turn; answers of many lengths."""
    made = []
    for number in range(10):
        shown = [None, 0, 1, 0][number % 4]
        made.append(request(sloth, QUESTIONS[number % 3], shown, max_tokens=2 + 3 * (number % 5)))
    pictures = sloth.image_encoder.prepare([tiny.picture(2), tiny.picture(1)])
    user = sloth.writer.user_message
    several = [user(QUESTIONS[0], 1), tiny.assistant("red"), user(QUESTIONS[1], 1)]
    for messages in ([user(QUESTIONS[2], 2)], several):
        made.append(Request(sloth.writer.write(messages, None), pictures, SamplingParams(max_tokens=9)))
    return made


def warm(sloth: FlashSloth, runner: GraphRunner) -> None:
    prompts = [one.prompt for one in requests(sloth)]
    warmed = runner.warm_up(ROWS, LONGEST, prompts)
    assert min(warmed.steps, warmed.prompts, warmed.pictures) > 1


def run(engine: Engine, asked: list[Request]) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Answers, two of which are added at a step, and all logits."""
    engine.sampler = sampler = RecordingSampler(engine._model)
    found: dict[int, list[Any]] = {}
    waiting = list(asked)
    while waiting or engine.has_work:
        for one in waiting[:2]:
            found[engine.add_request(one)] = []
        del waiting[:2]
        for output in engine.step():
            assert output.error is None
            found[output.request_id].append(output)
    return [tokens(found[number]) for number in sorted(found)], sampler.kept


@pytest.mark.parametrize(("name", "keep"), [("phi", 0), ("phi", 1 << 30), ("llama", 1 << 30), ("hd", 0)])
def test_logits_are_those_of_plain_passes_and_nothing_is_recorded_after_warm_up(
    name: str, keep: int, load_calm: LoadCalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    sloth = load_calm(name)
    expected, logits = run(plain_engine(sloth, keep=keep, max_rows=ROWS), requests(sloth))
    engine, runner = graph_engine(sloth, keep=keep, max_rows=ROWS)
    engine._image_encoder.encode = runner.encode
    warm(sloth, runner)
    captured = runner.counts.captured
    passes, shapes = runner._passes.prompts, []
    monkeypatch.setattr(runner._passes, "prompts", lambda shape: shapes.append(shape) or passes(shape))
    answers, replayed = run(engine, requests(sloth))
    assert answers == expected
    assert {(shape.begins, shape.pictures > 0) for shape in shapes} >= {(True, True), (True, False), (False, True)}
    for one, other in zip(replayed, logits, strict=True):
        torch.testing.assert_close(one, other, atol=CLOSE, rtol=CLOSE)
    assert runner.counts.captured == captured
    assert not runner.counts.degraded


def test_whole_views_of_an_hd_model_are_answered_beside_all_views(load_calm: LoadCalm) -> None:
    sloth = load_calm("hd")

    def whole_views() -> list[Request]:
        pictures = sloth.image_encoder.prepare([tiny.picture(1)], "standard")
        written = [sloth.writer.write([sloth.writer.user_message(one, 1)], None, "standard") for one in QUESTIONS]
        return [Request(one, pictures, SamplingParams(max_tokens=5)) for one in written]

    def mixed() -> list[Request]:
        return [one for pair in zip(requests(sloth), whole_views() * 4, strict=True) for one in pair]

    expected, logits = run(plain_engine(sloth, max_rows=ROWS), mixed())
    engine, runner = graph_engine(sloth, max_rows=ROWS)
    engine._image_encoder.encode = runner.encode
    warm(sloth, runner)
    captured = runner.counts.captured
    answers, found = run(engine, mixed())
    assert answers == expected
    for one, other in zip(found, logits, strict=True):
        torch.testing.assert_close(one, other, atol=CLOSE, rtol=CLOSE)
    assert runner.counts.captured == captured
    assert not runner.counts.degraded


def test_in_bfloat16_distributions_are_as_near_as_rounding_lets_them_be(load_calm: LoadCalm) -> None:
    def asked(sloth: FlashSloth) -> list[Request]:
        given = ((70, 71, 72, 73, 74),)  # the same tokens for both, whatever is likeliest
        return [replace(one, choices=given, params=SamplingParams(logprobs=True)) for one in requests(sloth)]

    exact, sloth = load_calm("phi"), load_calm("phi", "bfloat16")
    _, expected = run(plain_engine(exact, max_rows=ROWS), asked(exact))
    engine, runner = graph_engine(sloth, max_rows=ROWS)
    warm(sloth, runner)
    _, logits = run(engine, asked(sloth))
    for one, other in zip(logits, expected, strict=True):
        divergence = kl_div(one.log_softmax(-1), other.log_softmax(-1), log_target=True, reduction="batchmean")
        assert float(divergence) < MOST_DIVERGENCE
    assert not runner.counts.degraded


def test_without_warm_up_steps_are_recorded_and_prompts_are_not(phi: FlashSloth) -> None:
    expected, _ = run(plain_engine(phi, max_rows=ROWS), requests(phi))
    engine, runner = graph_engine(phi, max_rows=ROWS)
    assert run(engine, requests(phi))[0] == expected
    assert {key[0] for key in runner.recordings._replays} == {"step"}  # type: ignore[index]
    assert not runner.counts.degraded


def test_the_likeliest_tokens_come_with_the_pass(phi: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = run(plain_engine(phi, max_rows=ROWS), requests(phi))
    engine, runner = graph_engine(phi, max_rows=ROWS)
    warm(phi, runner)
    call, asked = Sampler.__call__, []
    monkeypatch.setattr(Sampler, "__call__", lambda *given: asked.append(given) or call(*given))
    ids = [engine.add_request(one) for one in requests(phi)]
    found = finish(engine)
    assert [tokens(found[number]) for number in ids] == expected
    assert 0 < len(asked) < 10  # after prompts whose passes are not for recording: those of several turns


def test_likeliest_tokens_of_logits_that_were_written_to_are_not_known(phi: FlashSloth) -> None:
    engine, runner = graph_engine(phi)
    engine.add_request(request(phi, QUESTIONS[0], max_tokens=9))
    engine.step()
    logits = runner.decode(runner.sequences)
    never = phi.model.generation_config.suppress_tokens or []
    chosen = logits.clone().index_fill_(1, torch.tensor(never, device=logits.device), -torch.inf).argmax(dim=-1)
    assert runner.greedy_tokens(logits) == chosen.tolist()
    assert runner.greedy_tokens(logits.clone()) is None
    logits[0, 0] = torch.inf
    assert runner.greedy_tokens(logits) is None


def test_drawn_tokens_are_the_same_too(phi: FlashSloth) -> None:
    drawn = {"max_tokens": 12, "temperature": 1.0, "seed": 3, "n": 3}

    def answers(engine: Engine) -> list[list[int]]:
        number = engine.add_request(request(phi, QUESTIONS[1], 0, **drawn))
        return sorted(tokens([output]) for output in finish(engine)[number])

    assert answers(graph_engine(phi, max_rows=ROWS)[0]) == answers(plain_engine(phi, max_rows=ROWS))


def test_a_row_that_is_not_finite_ends_alone_and_leaves_numbers(phi: FlashSloth) -> None:
    asked = [request(phi, question, 0, max_tokens=12) for question in QUESTIONS]
    expected, _ = run(plain_engine(phi), asked)
    engine, runner = graph_engine(phi, max_rows=len(asked))
    ids = [engine.add_request(request(phi, question, 0, max_tokens=12)) for question in QUESTIONS]
    outputs = engine.step() + engine.step()
    [bad] = [one for one in runner.sequences if one.request_id == ids[1]]
    runner.cache.values[1][bad.row, :, 3] = torch.nan
    again = engine.add_request(request(phi, QUESTIONS[1], 0, max_tokens=12))
    outputs += [one for some in finish(engine).values() for one in some]
    ends = {one.request_id: one for one in outputs}
    assert isinstance(ends[ids[1]].error, NonFiniteError)
    assert [tokens([ends[number]]) for number in (ids[0], again, ids[2])] == expected
    assert all(bool(memory.isfinite().all()) for side in runner.cache.memory for memory in side)
    assert not runner.counts.degraded


def test_a_longer_request_makes_rows_longer_in_the_same_memory(phi: FlashSloth) -> None:
    short, long = (request(phi, QUESTIONS[1], 0, max_tokens=count) for count in (10, 50))
    plain = plain_engine(phi)
    expected, _ = run(plain, [short, long, *[short] * 9])
    bytes_each = plain.runner.position_bytes
    positions = ROWS * 64
    assert len(short.prompt) + 10 < 64 < len(short.prompt) + 50 < 128
    engine, runner = graph_engine(phi, max_rows=ROWS, cache_bytes=positions * bytes_each)
    first = engine.add_request(short)
    outputs = [*engine.step(), *engine.step()]
    assert (runner.cache.rows, runner.cache.columns) == (ROWS, 64)
    places = [memory.data_ptr() for side in runner.cache.memory for memory in side]
    ids = [first, *(engine.add_request(one) for one in (long, *[short] * 9))]
    outputs += engine.step()
    lengths = {runner.cache.columns}
    while engine.has_work:
        outputs += engine.step()
        lengths.add(runner.cache.columns)
    answers = {one.request_id: tokens([one]) for one in outputs}
    assert [answers[number] for number in ids] == expected
    assert lengths == {64, 128}
    assert [memory.data_ptr() for side in runner.cache.memory for memory in side] == places
    assert not runner.counts.degraded


@pytest.mark.skipif(DEVICE == "cuda", reason="recordings there fail as they like")
def test_without_memory_for_a_recording_its_pass_runs_plain_and_others_are_recorded(
    phi: FlashSloth, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = run(plain_engine(phi, max_rows=ROWS), requests(phi))
    engine, runner = graph_engine(phi, max_rows=ROWS)
    graphs: Any = runner.recordings._graphs
    graphs.failing = torch.OutOfMemoryError("CUDA out of memory")
    engine.add_request(requests(phi)[0])
    with caplog.at_level(logging.WARNING):
        engine.step()
        engine.step()
    graphs.failing = None
    assert (runner.counts.out_of_memory, runner.counts.failed, runner.counts.degraded) == (1, 0, True)
    assert graphs.released == 1
    assert "runs slower" in caplog.text
    finish(engine)
    assert run(engine, requests(phi))[0] == expected
    assert len(runner.recordings)


@pytest.mark.skipif(DEVICE == "cuda", reason="recordings there fail as they like")
def test_after_another_failure_nothing_is_recorded_and_that_is_said_once(
    phi: FlashSloth, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = run(plain_engine(phi, max_rows=ROWS), requests(phi))
    engine, runner = graph_engine(phi, max_rows=ROWS)
    graphs: Any = runner.recordings._graphs
    graphs.failing = RuntimeError("operation not permitted when stream is capturing")
    with caplog.at_level(logging.WARNING):
        answers, _ = run(engine, requests(phi))
    assert answers == expected
    assert (runner.counts.failed, runner.counts.captured, runner.counts.degraded) == (1, 0, True)
    assert caplog.text.count("cannot be recorded") == 1


@pytest.mark.skipif(DEVICE == "cuda", reason="a graph would read other memory, and not say so")
def test_an_input_that_is_not_static_is_found(phi: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, runner = graph_engine(phi, max_rows=ROWS)
    passes: Any = runner._passes
    monkeypatch.setattr(passes, "_never", passes._never.clone())  # known when it is recorded, and another later
    engine.add_request(request(phi, QUESTIONS[0], max_tokens=9))
    engine.step()
    engine.step()
    assert not runner.counts.degraded
    monkeypatch.setattr(passes, "_never", passes._never.clone())
    [end] = [one for some in finish(engine).values() for one in some]
    assert end.finish_reason == FinishReason.ERROR
    assert "now it is" in str(end.error) or "neither static" in str(end.error)


def test_a_part_of_those_that_run_leaves_the_others_alone(phi: FlashSloth) -> None:
    engine, runner = graph_engine(phi, max_rows=ROWS)
    for question in QUESTIONS:
        engine.add_request(request(phi, question, 0, max_tokens=9))
    engine.step()
    together = runner.decode(runner.sequences).clone()
    apart = torch.cat([runner.decode([one]) for one in runner.sequences])
    torch.testing.assert_close(apart, together, atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(runner.decode(runner.sequences), together, atol=CLOSE, rtol=CLOSE)


def test_it_warms_up_only_while_nothing_runs(phi: FlashSloth) -> None:
    engine, runner = graph_engine(phi)
    engine.add_request(request(phi, QUESTIONS[0], max_tokens=9))
    engine.step()
    with pytest.raises(EngineError, match="1 answers are being made"):
        runner.warm_up(1, 64)


def test_it_warms_up_to_what_there_is_room_for(phi: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    _, runner = graph_engine(phi, max_rows=2)
    warmed = runner.warm_up(64, 10**6)
    assert warmed.steps == 2 * 1024 // 256
    assert (warmed.prompts, warmed.pictures) == (0, 0)


class EagerGraphs:
    """Records nothing but the output, as a graph holds on to nothing else."""

    def capture(self, run: Any, static: Any) -> Any:
        output = run()
        return lambda: output

    def release(self) -> None: ...


def test_who_drops_an_engine_has_its_memory_back_at_once(phi: FlashSloth) -> None:
    engine, runner = graph_engine(phi)
    runner.recordings._graphs = EagerGraphs()
    engine._image_encoder.encode = runner.encode
    runner.warm_up(2, 64, [request(phi, QUESTIONS[0], 0).prompt])
    memory = weakref.ref(runner.cache.memory[0][0])
    gc.disable()
    try:
        del engine, runner
        assert memory() is None
    finally:
        gc.enable()


def test_a_weight_that_is_replaced_is_recorded_anew(make_tiny_model: TinyModelMaker, phi: FlashSloth) -> None:
    sloth = copy.copy(phi)
    sloth.model = make_tiny_model("sdpa").to(DEVICE)
    engine, runner = graph_engine(sloth)
    [before] = run(engine, [request(sloth, QUESTIONS[0], max_tokens=9)])[0]
    captured = runner.counts.captured
    with torch.no_grad():
        sloth.model.lm_head.weight.neg_()  # written to: graphs read what stands there now
        [negative] = run(engine, [request(sloth, QUESTIONS[0], max_tokens=9)])[0]
        assert runner.counts.captured == captured
        sloth.model.lm_head.weight = torch.nn.Parameter(-sloth.model.lm_head.weight)
    assert run(engine, [request(sloth, QUESTIONS[0], max_tokens=9)])[0] == [before]
    assert negative != before
    assert runner.counts.captured == 2 * captured
    assert not runner.counts.degraded
