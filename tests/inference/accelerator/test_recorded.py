"""Passes compile in one piece and give the same; what cannot be compiled or recorded runs plainly, with a warning."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from PIL import Image
from twins import MakeTwins

from flashsloth.inference.accelerator import AcceleratorSettings
from flashsloth.inference.accelerator.recorded import CompiledPass, RecordedPass

QUESTIONS = ["What is this?", "Where is the red dog with the blue chair, left or right?"]
LENGTH = 20


def answers_of(sloth: Any, pictures: list[Image.Image]) -> list[str]:
    alone = [sloth.answer(pictures[0], question, max_new_tokens=LENGTH) for question in QUESTIONS]
    pairs = [(picture, question) for picture in (*pictures, None) for question in QUESTIONS]
    return [*alone, *sloth.answer_batch(pairs, max_new_tokens=LENGTH)]


def test_one_answers_passes_compile_in_one_piece(
    make_twins: MakeTwins, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    """The same as the next test in a hurry: each pass is compiled for one shape."""
    torch._dynamo.reset()
    twins = make_twins(backend="eager", slots=(1,), reading_rows=(1,), looking_pictures=(1,), width_step=512)
    with caplog.at_level(logging.WARNING):
        answers = [one.answer(pictures[0], QUESTIONS[0], max_new_tokens=3) for one in (twins.fast, twins.plain)]
    assert answers[0] == answers[1]
    assert not [record for record in caplog.records if record.name.startswith("flashsloth")]
    assert all(one.compiled is not None for one in twins.engine.passes.values())
    assert twins.engine.compile_seconds > 0
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["phi", "llama", "hd"])
def test_all_passes_compile_in_one_piece(
    make_twins: MakeTwins, pictures: list[Image.Image], name: str, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch._dynamo.reset()
    twins = make_twins(name, backend=backend)
    with caplog.at_level(logging.WARNING):
        assert answers_of(twins.fast, pictures) == answers_of(twins.plain, pictures)
    assert not [record for record in caplog.records if record.name.startswith("flashsloth")]
    assert all(one.compiled is not None for one in twins.engine.passes.values())
    assert twins.engine.compile_seconds > 0
    torch._dynamo.reset()


def failing_backend(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no such kernel")


def test_a_pass_that_cannot_be_compiled_is_called_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    what = CompiledPass("double", lambda x: x * 2, AcceleratorSettings(backend="eager"))
    what.compiled = torch.compile(what.function, fullgraph=True, backend=failing_backend)
    for _ in range(2):
        assert what("key", torch.ones(2)).tolist() == [2, 2]
    assert what.compiled is None
    assert caplog.text.count("double cannot be compiled here") == 1
    torch._dynamo.reset()


@pytest.mark.slow
def test_what_cannot_be_compiled_runs_plainly(
    make_twins: MakeTwins, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    twins = make_twins(backend="eager")
    for one in twins.engine.passes.values():
        one.compiled = torch.compile(one.function, fullgraph=True, backend=failing_backend)
    assert answers_of(twins.fast, pictures) == answers_of(twins.plain, pictures)
    assert {record.getMessage().split()[0] for record in caplog.records if "cannot be compiled" in record.message} == {
        "look",
        "read",
        "step",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="graphs can be recorded here")
def test_what_cannot_be_recorded_is_started_each_time(
    make_twins: MakeTwins, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    twins = make_twins(records=True)
    assert answers_of(twins.fast, pictures) == answers_of(twins.plain, pictures)
    assert "cannot be recorded here" in caplog.text
    assert not twins.engine.recorded


def test_an_error_of_the_function_itself_is_not_swallowed() -> None:
    def wrong(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("this is wrong")

    for backend in (None, "eager"):
        what = CompiledPass("wrong", wrong, AcceleratorSettings(backend=backend))
        with pytest.raises(ValueError, match="this is wrong"):
            RecordedPass(what, (), records=False)(torch.zeros(2))
    torch._dynamo.reset()


@pytest.mark.needs("cuda")
def test_a_recording_reads_what_it_is_given_and_is_made_once_a_shape() -> None:
    calls: list[int] = []

    def double(held: list[torch.Tensor], x: torch.Tensor, times: int) -> torch.Tensor:
        calls.append(1)
        held[0].copy_(x)
        return x * 2 * times

    held = [torch.zeros(3, device="cuda")]
    recorded = RecordedPass(CompiledPass("double", double, AcceleratorSettings(backend=None)), (held,), records=True)
    for start in (0, 5):
        x = torch.arange(start, start + 3, dtype=torch.float32, device="cuda")
        assert torch.equal(recorded(x, numbers=(3,)).cpu(), x.cpu() * 6)
        assert torch.equal(held[0], x)
    made = len(calls)
    recorded(torch.ones(3, device="cuda"), numbers=(3,))
    assert len(calls) == made
    assert recorded.recorded == 1
