"""The table of models and suites holds together."""

from __future__ import annotations

import pytest

from flashsloth.benchmark.models import BASELINES
from flashsloth.benchmark.workload import BASELINE_NAMES, MODELS, SUITES, find_models, find_suite
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
