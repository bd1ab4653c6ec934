"""FlashSloth does the standard job through its own door, and is measured whole."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import tiny
import tiny_shapes
import torch

from flashsloth.benchmark.models.flashsloth import BenchmarkedFlashSloth, make_prompt, make_published_size
from flashsloth.benchmark.timing import LANGUAGE, STAGES, StageClock, WallTime
from flashsloth.benchmark.workload import StandardJob
from flashsloth.errors import BenchmarkError
from flashsloth.inference.engine import engine
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.engine.graph_runner import GraphRunner
from flashsloth.inference.engine.model_runner import BatchedRunner
from flashsloth.inference.kv_cache import head_shapes
from flashsloth.inference.prompt import FIELDS, Prompt, PromptWriter
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

CPU = torch.device("cpu")
JOB = StandardJob(text_tokens=16, new_tokens=4)


@pytest.fixture(scope="module")
def model() -> BenchmarkedFlashSloth:
    return make_published_size(1, torch.float32, CPU, JOB, tiny_shapes.flashsloth())


def answer(model: BenchmarkedFlashSloth, picture: int = 1, question: int = 0, new_tokens: int = 4) -> StageClock:
    clock = StageClock(WallTime())
    with clock.watching(model.parts):
        model.answer(JOB.picture(picture), question, new_tokens, clock)
    return clock


def test_the_standard_prompt_has_154_positions() -> None:
    config = FlashSlothConfig()
    prompt = make_prompt(config, StandardJob().text(config.text_config.vocab_size, ()))
    assert len(prompt) == 64 + 81 + 9 == 154
    hd = FlashSlothConfig(image_grid=2)
    assert len(make_prompt(hd, StandardJob().text(hd.text_config.vocab_size, ()))) == 478


def test_the_prompt_is_laid_out_as_the_processor_writes_it(
    tiny_processor: FlashSlothProcessor, tiny_config: FlashSlothConfig
) -> None:
    writer = PromptWriter(tiny_processor)
    written = writer.write([writer.user_message("Where is it?", 1)], None)
    made = make_prompt(tiny_config, JOB.text(tiny.VOCABULARY, {tiny_config.image_token_id, tiny_config.query_token_id}))

    def layout(prompt: Prompt) -> list[tuple[bool, ...]]:
        marks = [tuple(map(bool, row)) for row in zip(*(getattr(prompt, name) for name in FIELDS[1:]), strict=True)]
        return [mark for place, mark in enumerate(marks) if place == 0 or marks[place - 1] != mark]

    # The written prompt has a new line between picture and question, which belongs to neither.
    without_newline = [mark for place, mark in enumerate(layout(written)) if place != 2]
    assert layout(made) == without_newline
    assert made.last_question_start() == made.question_turn.index(1)


def test_every_stage_is_seen_and_nothing_ends_the_answer_early(model: BenchmarkedFlashSloth) -> None:
    clock = answer(model, new_tokens=7)
    assert len(clock.tokens()) == 7
    spent = clock.stages()
    assert [name for name in STAGES if spent[name] <= 0] == []
    assert sum(spent.values()) == pytest.approx(clock.tokens()[0])


def test_a_new_picture_is_looked_at_and_a_known_one_is_not(model: BenchmarkedFlashSloth) -> None:
    model.forget()
    assert answer(model, picture=1, new_tokens=1).stages()["encoder"] > 0
    assert answer(model, picture=2, new_tokens=1).stages()["encoder"] > 0
    assert answer(model, picture=1, question=1, new_tokens=1).stages()["encoder"] == 0
    model.forget()
    assert answer(model, picture=1, question=1, new_tokens=1).stages()["encoder"] > 0


def test_a_batch_is_one_step_a_token(model: BenchmarkedFlashSloth) -> None:
    clock = StageClock(WallTime())
    with clock.counting_steps(model.head):
        model.answer_batch([JOB.picture(number) for number in range(3)], new_tokens=4)
    assert len(clock.tokens()) == 4


def test_speeding_up_changes_what_is_run_but_not_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["flashsloth.kernels.optimize"], "WORTH_PACKING", 1)
    model = make_published_size(1, torch.float32, CPU, JOB, tiny_shapes.flashsloth())
    plain_head, bytes_before = model.parts[LANGUAGE][-1], model.step_bytes
    model.speed_up(None)
    assert model.parts[LANGUAGE][-1] is not plain_head
    assert model.step_bytes == bytes_before
    assert len(answer(model).tokens()) == 4


def test_quantized_weights_are_fewer_bytes() -> None:
    model = make_published_size(1, torch.float32, CPU, JOB, tiny_shapes.flashsloth())
    plain = model.step_bytes
    model.speed_up("int8")
    assert model.step_bytes < plain / 2
    assert len(answer(model).tokens()) == 4


def test_what_a_token_reads_is_the_language_model_and_its_head(model: BenchmarkedFlashSloth) -> None:
    made = model.model
    read = sum(p.numel() for p in [*made.model.language_model.parameters(), *made.lm_head.parameters()])
    looked_up = made.get_input_embeddings().weight.numel()
    assert model.step_bytes == (read - looked_up) * torch.float32.itemsize
    text = made.config.text_config
    assert model.key_value_bytes == 2 * text.num_hidden_layers * text.hidden_size * torch.float32.itemsize


def test_runs_go_through_the_engine(model: BenchmarkedFlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    added = []
    add = Engine.add_request
    monkeypatch.setattr(Engine, "add_request", lambda self, request: (added.append(request), add(self, request))[1])
    answer(model)
    [request] = added
    assert len(request.pictures) == 1


class Rerun:
    """Replays by running again."""

    def __init__(self) -> None:
        self.failing: Exception | None = None

    def capture(self, run: Any, static: Any) -> Any:
        if self.failing is not None:
            raise self.failing
        return run

    def release(self) -> None: ...


def replayed(monkeypatch: pytest.MonkeyPatch, graphs: Rerun) -> BenchmarkedFlashSloth:
    """A model as it is on CUDA once it is sped up."""

    def make(model: Any, pad: int, config: EngineConfig, limit: int) -> Any:
        shapes = head_shapes(model)
        assert shapes is not None
        if not config.cuda_graphs:
            return BatchedRunner(model, shapes, pad)
        return GraphRunner(model, shapes, pad, config.max_rows, 1 << 26, graphs)

    monkeypatch.setattr(engine, "make_runner", make)
    return make_published_size(1, torch.float32, CPU, JOB, tiny_shapes.flashsloth())


def test_replayed_passes_are_seen_from_outside_and_nothing_is_recorded_on_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = replayed(monkeypatch, Rerun())
    assert model.recorded == 0
    model.speed_up(None)
    recorded = model.recorded
    assert recorded > 1
    model.forget()
    spent = answer(model).stages()
    assert min(spent["encoder"], spent["language"]) > 0
    assert spent["query"] == 0  # inside the language model's pass
    answer(model, question=1)
    model.answer_batch([JOB.picture(number) for number in range(3)], 4)
    model.answer_all([JOB.picture(number) for number in range(5)], 4, 2)
    assert model.recorded == recorded


def test_times_of_passes_that_could_not_be_recorded_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Rerun()
    graphs.failing = RuntimeError("capture is not permitted")
    model = replayed(monkeypatch, graphs)
    model.speed_up(None)
    with pytest.raises(BenchmarkError, match="slower than they should"):
        assert model.recorded
