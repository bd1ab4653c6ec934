"""A worker measures the small model as it was asked to, and answers mistakes too."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest

from flashsloth.benchmark.results import ModelResult, Run
from flashsloth.benchmark.timing import STAGES
from flashsloth.benchmark.worker import Worker, serve
from flashsloth.benchmark.workload import MODELS, StandardJob

JOB = StandardJob(text_tokens=16, new_tokens=4)


def reply(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    replies = io.StringIO()
    serve([json.dumps(request)], replies, worker)
    return json.loads(replies.getvalue())


def build_request(name: str) -> dict[str, Any]:
    return {"do": "build", "spec": dataclasses.asdict(MODELS[name]), "job": dataclasses.asdict(JOB), "device": "cpu"}


@pytest.fixture(scope="module")
def built() -> tuple[Worker, dict[str, Any]]:
    """A worker that has built the small model, and what it said of it."""
    worker = Worker()
    answer = reply(worker, build_request("nano"))
    assert "error" not in answer, answer
    return worker, answer["result"]


def test_facts_are_fields_of_a_result(built: tuple[Worker, dict[str, Any]]) -> None:
    facts = built[1]
    result = ModelResult("nano", "Nano", "shipped", "float32", "float32", **facts)
    assert result.parameters == pytest.approx(MODELS["nano"].parameters, rel=0.02)
    assert result.visual_tokens == 16
    assert result.positions == 16 + 16 + 4
    assert result.flops["encoder"] > 0
    assert result.build_seconds is not None
    assert result.build_seconds > 0


def test_a_run_is_a_run(built: tuple[Worker, dict[str, Any]]) -> None:
    run = Run(**reply(built[0], {"do": "run", "picture": 1})["result"])
    assert len(run.tokens) == JOB.new_tokens
    assert run.tokens == sorted(run.tokens)
    assert set(run.stages) == set(STAGES)
    assert sum(run.stages.values()) == pytest.approx(run.first_token)
    assert 0 <= run.others_share <= 1


def test_another_question_looks_at_nothing(built: tuple[Worker, dict[str, Any]]) -> None:
    run = Run(**reply(built[0], {"do": "again", "picture": 2})["result"])
    assert len(run.tokens) == 1
    assert run.stages["encoder"] == 0
    assert run.stages["language"] > 0


def test_a_batch_is_timed_by_steps(built: tuple[Worker, dict[str, Any]]) -> None:
    run = Run(**reply(built[0], {"do": "batch", "picture": 3, "rows": 3})["result"])
    assert len(run.tokens) == JOB.new_tokens
    assert run.stages["encoder"] > 0


def test_memory_was_held(built: tuple[Worker, dict[str, Any]]) -> None:
    assert reply(built[0], {"do": "peak"})["result"] > 4 * MODELS["nano"].parameters


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"do": "run", "picture": 1}, "BenchmarkError: nothing is built; expected the request 'build' first"),
        ({"do": "dance"}, "request is 'dance'; expected one of machine,"),
        ({"picture": 1}, "request is None"),
        ({"do": "machine", "painting": 1}, "TypeError"),
    ],
)
def test_mistakes_are_answers_of_one_line(request_: dict[str, Any], message: str) -> None:
    answer = reply(Worker(), request_)
    assert message in answer["error"]
    assert "\n" not in answer["error"]
