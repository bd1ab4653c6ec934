"""Results survive being written down; medians, percentiles, shares and ratios are what they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from some_results import make_results

from flashsloth.benchmark.results import (
    FORMAT,
    RESULTS_FILE,
    Results,
    Run,
    all_figures,
    load_results,
    percentile,
    ratios,
    save_results,
)
from flashsloth.errors import BenchmarkError


def test_a_runs_times() -> None:
    run = Run({}, [2.0, 2.5, 4.0], 0.0, 50e9)
    assert (run.first_token, run.response, run.token) == (2.0, 4.0, 1.0)
    assert run.gaps == [0.5, 1.5]


def test_results_survive_json(tmp_path: Path) -> None:
    results = make_results()
    save_results(results, tmp_path / RESULTS_FILE)
    assert load_results(tmp_path / RESULTS_FILE) == results
    assert load_results(tmp_path) == results


def damage(**changes: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(make_results()), **changes}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (damage(format=FORMAT + 1), f"have format {FORMAT + 1}; expected {FORMAT}: measure again"),
        ({}, "have format None"),
        (damage(speed=3), "results in the results is damaged"),
        (damage(subjects=[{"name": "a"}]), "modelresult in the results is damaged"),
    ],
)
def test_what_is_no_result_is_refused(stored: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        Results.from_dict(stored)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not JSON"), ("[]", "holds a list; expected"), (None, "there is no file")]
)
def test_a_file_that_holds_none_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BenchmarkError, match=message):
        load_results(path)


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    save_results(make_results(), tmp_path / RESULTS_FILE)
    stored = json.loads((tmp_path / RESULTS_FILE).read_text())
    assert stored["subjects"][0]["runs"][0]["tokens"][0] == 2.0


@pytest.fixture
def results() -> Results:
    return make_results()


def test_percentiles() -> None:
    assert percentile([5.0]) == 5.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([0.0, 10.0], 0.95) == pytest.approx(9.5)
    assert percentile(list(range(101)), 0.95) == 95


def test_figures_of_a_model(results: Results) -> None:
    first = all_figures(results)[0]
    assert first.first_token is not None
    assert first.first_token.median == 2.0
    assert first.first_token.p95 == pytest.approx(2.18)
    assert first.token is not None
    assert first.token.median == pytest.approx(0.12)
    assert first.tokens_per_second == pytest.approx(1 / 0.12)
    assert first.response is not None
    assert first.response.median == pytest.approx(2.0 + 3 * 0.12)
    assert first.stages["encoder"] == pytest.approx(1.2)
    assert first.stages["pooling"] == pytest.approx(2.0 * 0.05)
    assert first.stages["prefill"] == pytest.approx(2.0 * (0.29 + 0.02))
    assert first.again is not None
    assert first.again.median == 0.4
    assert first.batch_rate == pytest.approx(8 / 0.16)


def test_shares_of_the_limits(results: Results) -> None:
    first = all_figures(results)[0]
    assert first.first_flops == 1e12  # one more token's are not counted
    assert first.first_limit == 1.0
    assert first.first_share == 0.5
    held = 81 + 73 + 4 / 2
    assert first.token_limit == pytest.approx((5e9 + held * 3e5) / 50e9)
    assert first.token_share == pytest.approx(first.token_limit / 0.12)


def test_a_limit_that_was_not_measured_is_none(results: Results) -> None:
    results.machine["matrix_rate"] = {"float32": 1e12}
    first = all_figures(results)[0]
    assert first.first_limit is None
    assert first.first_share is None


def test_ratios_are_of_runs_that_alternated(results: Results) -> None:
    eight, baseline = ratios(results)  # not of the one that failed
    assert (eight.other.name, baseline.other.name) == ("flashsloth-int8", "qwen2-vl-2b")
    assert eight.first_token == pytest.approx(2.4 / 2.0)
    assert baseline.first_token == pytest.approx(7.8 / 2.0)  # medians of [8, 7.6] and [2.2, 1.8]
    assert baseline.token == pytest.approx(2.0)


def test_one_that_failed_has_no_figures(results: Results) -> None:
    broken = all_figures(results)[-1]
    assert broken.first_token is None
    assert broken.tokens_per_second is None
    assert broken.stages == {}
    assert broken.token_limit is None
