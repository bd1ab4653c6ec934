"""The standard job is the same for the same seed and brings each run something new; models and suites hold together."""

from __future__ import annotations

from typing import Any

import pytest

from flashsloth.benchmark.models import BASELINES
from flashsloth.benchmark.workload import (
    BASELINE_NAMES,
    CLOSING_TOKENS,
    HEIGHT,
    MODELS,
    SUITES,
    WIDTH,
    StandardJob,
    find_models,
    find_suite,
)
from flashsloth.errors import BenchmarkError


def test_every_suite_names_known_models_once() -> None:
    for suite in SUITES.values():
        assert find_models(suite.names)
        assert set(suite.batched) <= set(MODELS)


def test_the_full_suite_has_every_baseline_and_every_precision() -> None:
    names = find_suite("cpu").names
    assert set(BASELINE_NAMES) == set(BASELINES) <= set(names)
    assert {MODELS[name].precision for name in names} == {"bfloat16", "float32", "int8", "int4"}


def test_other_forms_name_a_model() -> None:
    assert {spec.varies for spec in MODELS.values()} - {None} <= set(MODELS)


def test_bytes_are_those_of_the_precision_computed_in() -> None:
    assert MODELS["flashsloth-f32"].bytes == 2 * MODELS["flashsloth"].bytes
    assert MODELS["flashsloth-int4"].bytes == MODELS["flashsloth"].bytes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["flashsloth", "gpt"], "there is no model 'gpt'; expected some of flashsloth,"),
        ([], "no model is named"),
        (["nano", "nano"], "'nano' is named twice"),
    ],
)
def test_unknown_models_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        find_models(names)


def test_unknown_suites_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="there is no suite 'tpu'; expected one of cpu, gpu, quick"):
        find_suite("tpu")


def test_the_text_has_the_tokens_asked_for_and_no_placeholder() -> None:
    for tokens in (8, 64, 101):
        text = StandardJob(text_tokens=tokens).text(vocabulary=20, forbidden={3, 5})
        ids = [*text.opening, *text.question, *text.closing]
        assert len(ids) == tokens
        assert len(text.closing) == CLOSING_TOKENS
        assert text.question
        assert {3, 5}.isdisjoint(ids)
        assert max(ids) < 20


def test_another_question_changes_nothing_before_it() -> None:
    job = StandardJob()
    first, second = (job.text(1000, (), question=number) for number in (0, 1))
    assert first.opening == second.opening
    assert first.closing == second.closing
    assert first.question != second.question


def test_the_seed_decides_everything() -> None:
    assert StandardJob(seed=1).text(1000, ()) == StandardJob(seed=1).text(1000, ())
    assert StandardJob(seed=1).text(1000, ()) != StandardJob(seed=2).text(1000, ())
    assert StandardJob(seed=1).picture(7).tobytes() == StandardJob(seed=1).picture(7).tobytes()
    assert StandardJob(seed=1).picture(7).tobytes() != StandardJob(seed=2).picture(7).tobytes()


def test_every_picture_is_a_new_one() -> None:
    pictures = [StandardJob().picture(number) for number in range(3)]
    assert {picture.size for picture in pictures} == {(WIDTH, HEIGHT)}
    assert {picture.mode for picture in pictures} == {"RGB"}
    assert len({picture.tobytes() for picture in pictures}) == 3


@pytest.mark.parametrize(
    "fields", [{"text_tokens": 7}, {"new_tokens": 1}, {"seed": -1}, {"text_tokens": 64.0}, {"new_tokens": True}]
)
def test_what_is_no_job_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BenchmarkError, match=f"{next(iter(fields))} is .*; expected a whole number, at least"):
        StandardJob(**fields)
